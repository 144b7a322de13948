"""Which packages are whole on a node: dpkg's own word, for their programs are there long before they work.

Unpacked, PostgreSQL has its programs and no user `postgres`, Docker its client and no group `docker`.
"""

import json
import subprocess
import sys
from typing import Dict, List

# dpkg's words for a package of which at most the configuration is left.
ABSENT = ("not-installed", "config-files")


def package_states(names: List[str]) -> Dict[str, str]:
    """Return dpkg's state of each package that it has heard of: `installed`, `unpacked`, `half-configured`, …"""
    if not names:
        return {}  # dpkg-query would show them all
    argv = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\\n"] + names
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20)
    except FileNotFoundError:
        return {}
    return dict(line.split() for line in done.stdout.decode("utf-8", "replace").splitlines())


def lacking(names: List[str]) -> List[str]:
    """List the packages that are not installed, or not to the end."""
    states = package_states(names)
    return [name for name in names if states.get(name) != "installed"]


def half_installed(names: List[str]) -> List[str]:
    """List the packages whose installation was begun and did not come to its end, or has not yet."""
    states = package_states(names)
    return [name for name in names if states.get(name, ABSENT[0]) not in ("installed",) + ABSENT]


if __name__ == "__main__":
    print(json.dumps(lacking(json.load(sys.stdin))))
