"""Values in, text out; every sink escapes what comes from the code under test."""
