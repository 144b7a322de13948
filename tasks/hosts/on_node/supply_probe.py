"""Runs on a node: can everything be had that is to be installed? Nothing of the node is changed.

apt's own lists are empty on a fresh image and old on another, so they are fetched anew, into a directory that
is removed again.
"""

import glob
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from typing import Any, Dict, List, Optional

FETCH_S = 120


def run(argv: List[str], cwd: str, limit: float) -> "subprocess.CompletedProcess[bytes]":
    """Run a program; a late one counts as failed."""
    try:
        return subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=limit, cwd=cwd, env=ENV
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 124, b"", b"not ended in time")


ENV = dict(os.environ, LC_ALL="C", DEBIAN_FRONTEND="noninteractive")


class Lists:
    """apt's package lists in a directory of our own.

    Args:
        directory: where.
        source: a line of sources.list to be used instead of the node's.
    """

    def __init__(self, directory: str, source: Optional[str] = None) -> None:
        self.directory = directory
        os.makedirs(directory + "/lists/partial")
        options = [
            "Dir::State::Lists=" + directory + "/lists",
            # Kept, since without it every question reads all lists anew: 0.6 s instead of 0.015 s for each package.
            "Dir::Cache::pkgcache=" + directory + "/pkgcache.bin",
            "Dir::Cache::srcpkgcache=",
        ]
        options += ["Dir::Cache::Archives=" + directory, "Acquire::Languages=none", "APT::Sandbox::User=root"]
        options += ["APT::Update::Post-Invoke-Success::=", "APT::Update::Error-Mode=any"]
        if source is not None:
            with open(directory + "/sources.list", "w") as target:
                target.write(source + "\n")
            options += [
                "Dir::Etc::SourceList=" + directory + "/sources.list",
                "Dir::Etc::SourceParts=/dev/null",
            ]
        self.options = [word for option in options for word in ("-o", option)]
        done = run(["apt-get", "-qq"] + self.options + ["update"], directory, FETCH_S)
        # Some sources may be out of reach and the wanted package in another one: this counts only with a missing one.
        self.complaint = (done.stderr.decode("utf-8", "replace").strip().splitlines() or [""])[0]

    def has(self, package: str) -> bool:
        """Whether apt could install a package."""
        done = run(["apt-cache"] + self.options + ["policy", package], self.directory, 60)
        found = re.search(r"Candidate: (\S+)", done.stdout.decode("utf-8", "replace"))
        return found is not None and found.group(1) != "(none)"

    def fetch(self, package: str) -> Optional[str]:
        """Download a package into the directory and return its path."""
        run(["apt-get", "-qq"] + self.options + ["download", package], self.directory, FETCH_S)
        found = glob.glob(self.directory + "/" + package + "_*.deb")
        return found[0] if found else None


def codename() -> str:
    """Return the distribution's code name."""
    with open("/etc/os-release", errors="replace") as source:
        found = re.search(r'^VERSION_CODENAME="?([\w.-]+)', source.read(), re.MULTILINE)
    return found.group(1) if found else ""


def in_projects_repository(distribution: Lists, package: str) -> str:
    """Ask the PostgreSQL project's own repository, by the address and key that the distribution ships for it."""
    common = distribution.fetch("postgresql-common")
    if common is None:
        return "the distribution has no postgresql-common to find the PostgreSQL repository by"
    unpacked = distribution.directory + "/common"
    run(["dpkg-deb", "-x", common, unpacked], distribution.directory, 60)
    shipped = unpacked + "/usr/share/postgresql-common/pgdg"
    keys = sorted(glob.glob(shipped + "/*.gpg") + glob.glob(shipped + "/*.asc"), reverse=True)
    scripts = glob.glob(shipped + "/*.sh")
    if not keys or not scripts:
        return "the distribution's postgresql-common does not know the PostgreSQL repository"
    with open(scripts[0], errors="replace") as source:
        servers = re.findall(r'\bHOST="([\w.-]+)"', source.read())
    complaint = ""
    for number, server in enumerate(dict.fromkeys(servers)):
        line = "deb [signed-by=%s] https://%s/pub/repos/apt %s-pgdg main" % (keys[0], server, codename())
        lists = Lists("%s/project-%d" % (distribution.directory, number), line)
        if lists.has(package):
            return "ok"
        complaint = complaint or lists.complaint
    return "nor in the PostgreSQL repository (%s)" % (complaint or "it has no such package")


def packages(wanted: Dict[str, List[str]], postgres: Optional[str]) -> Dict[str, str]:
    """Return `ok` or what is wrong for each wanted thing, any of whose packages will do."""
    with tempfile.TemporaryDirectory(prefix="harbor-ha-", dir="/var/tmp") as directory:
        lists = Lists(directory + "/apt")
        found = {}
        for name, choices in wanted.items():
            there = any(lists.has(package) for package in choices)
            missing = "%s is in no package repository of this machine" % " or ".join(choices)
            found[name] = "ok" if there else missing + (" (%s)" % lists.complaint if lists.complaint else "")
        if postgres is not None and found.get(postgres, "ok") != "ok":
            elsewhere = in_projects_repository(lists, postgres)
            found[postgres] = "ok" if elsewhere == "ok" else "%s, %s" % (found[postgres], elsewhere)
        return found


def reachable(url: str) -> str:
    """Ask for the first byte of a file; `ok`, or what went wrong.

    Not for its head: an address that is signed for a download refuses that.
    """
    try:
        request = urllib.request.Request(url, headers={"Range": "bytes=0-0"})
        urllib.request.urlopen(request, timeout=15).close()
        return "ok"
    except (OSError, ValueError) as error:
        return str(error)


if __name__ == "__main__":
    p: Dict[str, Any] = json.load(sys.stdin)
    answer = {
        "packages": packages(p["packages"], p["postgres"]) if p["packages"] else {},
        "installer": reachable(p["url"]) if p["url"] else "ok",
    }
    print(json.dumps(answer))
