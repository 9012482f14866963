"""Runs a bundle's model: sessions and their pool, batches, caches, threads by measurement, and a guard. No torch."""
