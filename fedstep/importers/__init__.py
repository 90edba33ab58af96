"""Read past builds from files and CI services."""
