"""The wire: what is sent to the aggregator and what comes back."""
