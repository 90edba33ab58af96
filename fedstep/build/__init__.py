"""Reads a build: reports, git, CI variables, test source in; values out."""
