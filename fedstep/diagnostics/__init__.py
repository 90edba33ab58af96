"""To look into what fedstep knows, sends and needs, without changing any of it."""
