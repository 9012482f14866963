"""Whom to believe: canonical forms, keys, signatures, encryption, and reading what strangers may have written."""
