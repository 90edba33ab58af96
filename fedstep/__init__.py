"""Predict flaky tests, build time and failures from a project's own CI, and learn with others without sharing it."""

__version__ = "0.1.0"
