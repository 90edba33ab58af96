"""fedstep/server/secagg."""
