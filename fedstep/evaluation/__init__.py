"""Replays recorded histories as a federation."""
