"""Preparation: steps on the float model that make it bear quantization better. One file is one part."""
