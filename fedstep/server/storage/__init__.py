"""fedstep/server/storage."""
