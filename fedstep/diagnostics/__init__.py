"""Inspect what fedstep knows, sends and needs, without changing it."""
