"""Past builds from elsewhere, as values."""
