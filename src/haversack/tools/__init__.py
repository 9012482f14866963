"""Know-how without opinion, in four ranks: numerics, worker; codec, formats, store; data, trust; graph."""
