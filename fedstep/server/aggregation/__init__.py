"""Combine the updates of many projects into the next version of each task."""
