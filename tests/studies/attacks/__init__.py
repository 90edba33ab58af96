"""Studies of attacks, privacy and the starter model; not part of the package."""
