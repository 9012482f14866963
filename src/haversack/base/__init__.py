"""The values that travel between stages: plain data on the standard library and NumPy, imported by everything."""
