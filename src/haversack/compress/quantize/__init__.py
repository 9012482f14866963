"""Quantizers: how a range of activations and the scales of a weight are set. One file is one part."""
