"""The composition roots: they know every stage, and no stage knows another. Start in ``pack.py``."""
