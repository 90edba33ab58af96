"""Render results as text; every format escapes strings from the code under test."""
