"""Measure some of the peers: `python -m benchmarks.peers [NAME…]`; all of them without a name."""

import argparse
import os
import signal
import sys

from benchmarks.peers.rows import PEERS, ROUNDS, run


def main() -> None:
    """Run what was asked for; the machines are removed also when this is told to end."""
    parser = argparse.ArgumentParser(prog="benchmarks.peers", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"of {', '.join(PEERS)}; all without a name")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each accident happens")
    given = parser.parse_args()
    if unknown := set(given.name) - set(PEERS):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    print(f"peers: load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
    print("\n".join(run(given.name or tuple(PEERS), given.rounds)), flush=True)


if __name__ == "__main__":
    main()
