"""What stands on the nodes and works without the orchestrator: boot guard, self-fence, durability."""
