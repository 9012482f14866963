"""Lower: a model and its encodings become a runtime's file, opened again and read back before anybody gets it."""
