"""Read the data of a finished build: test reports of any tool, also damaged ones, CI variables and git."""
