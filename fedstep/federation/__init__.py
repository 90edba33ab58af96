"""Messages to and from the aggregator, and the client that exchanges them."""
