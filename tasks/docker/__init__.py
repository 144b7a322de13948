"""The Docker engine of a node."""
