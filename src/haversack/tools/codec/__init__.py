"""Bytes made small for the way to a device, without loss: entropy coding, and the download form of a file."""
