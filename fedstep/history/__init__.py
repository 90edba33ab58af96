"""The project's own memory: an append-only log and a summary of it."""
