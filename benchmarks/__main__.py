"""Measure bounds: `python -m benchmarks [dump|blobs|night|million|restore|load|watch|peers]…`; else all of them."""

import argparse
import os
from collections.abc import Callable

from benchmarks import blobs, dump, night, restore, watch
from benchmarks.peers import rows as peers

NAMES = ("dump", "blobs", "night", "million", "restore", "load", "watch", "peers")


def main() -> None:
    """Run what was asked for, one after the other."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"of {', '.join(NAMES)}; all without a name")
    parser.add_argument("--rows", type=int, default=1_500_000, help="of each table, for dump and load")
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
        "peers": peers.run,
    }
    for name in given.name or NAMES:
        print(f"{name}: load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True)
        print("\n".join(f"    {line}" for line in runs[name]()), flush=True)


if __name__ == "__main__":
    main()
