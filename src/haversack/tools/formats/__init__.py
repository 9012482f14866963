"""File formats, read within bounds: where the tensors of a file are, and what may not be believed of it."""
