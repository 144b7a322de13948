"""Measure bounds: `python -m benchmarks [NAME…]`; all of them without a name."""

import argparse
import os
from collections.abc import Callable

from benchmarks import blobs, dump, failover, fleet, guide, night, overhead, rejoin, restore, watch
from benchmarks.lab_site import NAME, ROUNDS, or_why
from benchmarks.peers import rows as peers

NAMES = (
    "dump",
    "blobs",
    "night",
    "million",
    "restore",
    "load",
    "watch",
    "fleet",
    "failover",
    "untouched",
    "guide",
    "rejoin",
    "overhead",
    "peers",
)


def main() -> None:
    """Run what was asked for, one after the other."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"of {', '.join(NAMES)}; all without a name")
    parser.add_argument("--rows", type=int, default=1_500_000, help="of each table, for dump and load")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of what is measured on the lab")
    parser.add_argument("--lab", default=NAME, help="the lab's name; it stays for the next time")
    parser.add_argument("--sizes", type=float, nargs="+", default=rejoin.SIZES_GB, help="in GB, for rejoin")
    given = parser.parse_args()
    if unknown := set(given.name) - set(NAMES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    runs: dict[str, Callable[[], list[str]]] = {
        "dump": lambda: dump.run(given.rows),
        "blobs": blobs.run,
        "night": lambda: night.run(100_000),
        "million": lambda: night.run(1_000_000),
        "restore": restore.blobs,
        "load": lambda: restore.dump(given.rows),
        "watch": watch.run,
        "fleet": lambda: fleet.run(given.lab),
        "failover": lambda: or_why(lambda: failover.run(given.lab, given.rounds)),
        "untouched": lambda: or_why(lambda: failover.untouched(given.lab, given.rounds)),
        "guide": lambda: or_why(lambda: guide.run(given.lab, given.rounds)),
        "rejoin": lambda: or_why(lambda: rejoin.run(given.lab, tuple(given.sizes), given.rounds)),
        "overhead": lambda: or_why(lambda: overhead.run(given.lab, given.rounds)),
        "peers": peers.run,
    }
    for name in given.name or NAMES:
        print(f"{name}: load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
        print("\n".join(f"    {line}" for line in runs[name]()), flush=True)


if __name__ == "__main__":
    main()
