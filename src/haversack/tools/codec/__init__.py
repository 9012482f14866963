"""Bytes made small for the way to a device, without loss: entropy coding, and the form in which a file is downloaded."""
