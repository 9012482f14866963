"""ONNX as a frame that more than one target fills: the exported graph under our keys, edited and read back."""
