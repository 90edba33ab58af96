"""fedstep/server/dashboard."""
