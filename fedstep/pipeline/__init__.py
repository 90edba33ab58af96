"""fedstep/pipeline."""
