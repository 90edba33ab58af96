"""A session of pytest: what was attempted, how it is recorded, and what is run again."""
