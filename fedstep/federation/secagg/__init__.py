"""fedstep/federation/secagg."""
