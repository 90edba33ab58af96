"""fedstep/schema."""
