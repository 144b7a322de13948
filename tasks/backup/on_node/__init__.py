"""Programs that run on a node: Python 3.6 and the standard library only."""
