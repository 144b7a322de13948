"""What makes a machine the orchestrator, beside its units: the command in the path, its environment, a look at it."""
