"""Read what a finished build left behind: the test reports of any tool, in any state of repair."""
