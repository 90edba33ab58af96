"""The aggregator."""
