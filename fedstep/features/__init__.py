"""Turns a build and the history into named features."""
