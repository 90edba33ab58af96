"""fedstep/server/dp."""
