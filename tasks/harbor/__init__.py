"""Harbor on the nodes: installation, configuration, start, repoint, and proofs that it works."""
