"""What the fork server of the runner imports before the first run is due: everything that a flow needs.

To be imported in that process only, and by its test: afterwards it must have the one thread that it began with, for a
fork of a process with two may hold a lock that nobody lets go.
"""

from deployments.catalogue import CATALOGUE

FLOWS = tuple(entry.flow() for entry in CATALOGUE)
"""The flows, imported with all that they import; their programs for the nodes are made by that, too."""
