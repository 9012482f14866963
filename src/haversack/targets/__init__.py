"""Runtimes: each a folder with one class that lowers, reads back, runs and times; ``reference`` is their meaning."""
