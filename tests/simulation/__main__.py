"""Runs drawn histories for as long as one likes: `make simulate HOURS=1`, or HISTORIES=100000, SEED=…, REPLAY=….

Ends with status 1 and a story when an invariant is violated.
"""

import argparse
import os
import sys

from tests.simulation.campaign import campaign, replay


def main() -> int:
    """Run, tell, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--hours", type=float, default=0.0, help="how long; 0: by the number of histories")
    parser.add_argument("--histories", type=int, default=0, help="how many; 0: as many as the hours allow")
    parser.add_argument("--seed", type=int, default=1, help="the number of the first history")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--replay", type=int, help="tell one history by its number")
    given = parser.parse_args()
    if given.replay is not None:
        return replay(given.replay)
    if not given.hours and not given.histories:
        given.histories = 10_000
    return campaign(given)


if __name__ == "__main__":
    sys.exit(main())
