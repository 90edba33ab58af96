"""Secure aggregation on the client: updates as two additive shares, loaded only where a helper is configured."""
