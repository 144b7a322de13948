"""Programs that run on a node: Python 3.6, standard library only; see tasks/node_program.py."""
