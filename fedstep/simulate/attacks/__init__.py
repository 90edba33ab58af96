"""Attackers against what leaves a project, each with every protection off, by default and on."""
