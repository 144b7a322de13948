"""Install the distribution's Docker engine and compose on this node, as far as they are missing."""

# ruff: noqa: UP006, UP035 - Python 3.6

import os
import sys
from typing import List

from tasks.docker.on_node.engine_facts import observe
from tasks.docker.on_node.lib import must, payload, poll, reply, run

APT = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]


def available(package: str) -> bool:
    """Tell whether apt can install a package."""
    out = run(["apt-cache", "policy", package], 60)[1]
    return "Candidate:" in out and "Candidate: (none)" not in out


def missing_packages(compose_choices: List[str]) -> List[str]:
    """List what to install; compose is the first choice that this distribution has."""
    seen = observe()
    packages = [] if seen["engine"] is not None else ["docker.io"]
    if not seen["compose_plugin"] and not seen["compose_v1"]:
        found = [package for package in compose_choices if available(package)]
        if not found:
            sys.exit("None of the packages " + ", ".join(compose_choices) + " is available to apt.")
        packages.append(found[0])
    return packages


def install(compose_choices: List[str]) -> List[str]:
    """Install what is missing, start the engine, now and at boot, and wait until it answers."""
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    must([*APT, "update"], 300)
    packages = missing_packages(compose_choices)
    if packages:
        # Without the recommendations: they bring a container runtime's second choice and a file system tool.
        must(
            ["env", "DEBIAN_FRONTEND=noninteractive", *APT, "install", "--no-install-recommends", *packages],
            900,
        )
    must(["systemctl", "enable", "--now", "docker"], 120)
    if not poll(lambda: run(["docker", "version"], 20)[0] == 0, 60, 0.2):
        sys.exit(
            "The Docker engine does not answer: " + run(["journalctl", "-u", "docker", "-n", "20"], 20)[1]
        )
    return packages


if __name__ == "__main__":
    reply({"installed": install(payload()["compose_choices"])})
