"""Palettes for weights: how their values are chosen. One file is one part."""
