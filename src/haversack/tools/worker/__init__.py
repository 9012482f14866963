"""A process behind a pipe: start it, call it, limit it, kill it; its crash is an exception and never our end."""
