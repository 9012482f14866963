"""The arithmetic of quantization on NumPy arrays: affine integers, tie-free scales, channels, packing, bootstrap."""
