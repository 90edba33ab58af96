"""The commands: each parses options, calls the pipeline, and prints text with an exit code."""
