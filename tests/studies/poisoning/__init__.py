"""Simulate attacks on a federation through the real store, aggregation and gate."""
