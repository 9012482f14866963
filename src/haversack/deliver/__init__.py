"""Delivering: a publisher signs releases into a static repository, and a device takes only what it can verify."""
