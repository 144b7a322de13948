"""Write the site file of a lab: what an operator would write for these machines."""

import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lab import keys
from lab.services import ADMIN_PORT, BACKEND
from lab.shell import LabError, step
from lab.topology import BUCKET, HOSTNAME, PAIR, REGION, REPOSITORY, S3_HOST, S3_PORT, STATE, Topology


@dataclass(frozen=True)
class Installer:
    """A Harbor offline installer: where it is, which version, which checksum."""

    path: Path
    version: str
    sha256: str


def find_installer(version: str = "") -> Installer:
    """The real Harbor where `HARBOR_INSTALLER` names its file, else the miniature one, built when missing.

    Args:
        version: of the miniature; "" is the usual one.

    Raises:
        LabError: the named file does not exist, its name tells no version, or it is not the version that is wanted.
    """
    from lab.harbor.installer import USUAL_VERSION, build_installer

    chosen = os.environ.get("HARBOR_INSTALLER")
    if chosen:
        real = _real_installer(Path(chosen).resolve())
        if version and real.version.removeprefix("v") != version:
            raise LabError(
                f"HARBOR_INSTALLER names Harbor {real.version}, and this lab is one of Harbor {version}.",
                remedy="Leave one of the two out.",
            )
        return real
    with step("Build the miniature Harbor's installer, unless it stands"):
        built = build_installer(STATE / "installer", version or USUAL_VERSION)
    return Installer(built.path, built.version, built.sha256)


def site(lab: Topology, nodes: tuple[str, ...], installer: Installer, postgres_major: int) -> dict[str, Any]:
    """The site file's content for a site on the given nodes of the lab."""
    return {
        "name": lab.name,
        "nodes": {node: _node(lab, node) for node in nodes},
        "postgres": {
            "major": postgres_major,
            "data_dir": "/data/pgsql/data",
            "archive_dir": "/data/pgsql/archive",
            "application": {"user": "harbor", "password": _file(lab, "postgres-application-password")},
            "replication": {"user": "replicator", "password": _file(lab, "postgres-replication-password")},
            "rewind": {"user": "rewinder", "password": _file(lab, "postgres-rewind-password")},
        },
        "harbor": {
            "installer": str(installer.path),
            "sha256": installer.sha256,
            "version": installer.version,
            "hostname": HOSTNAME,
            "certificate": {"file": str(lab.directory / "harbor.pem")},
            "certificate_key": _file(lab, "harbor-key"),
            "admin_password": _file(lab, "harbor-admin-password"),
        },
        "redis": {"host": lab.address("redis"), "password": _file(lab, "redis-password")},
        "nas": {"path": "/mnt/nas"},
        "balancer": {
            "kind": "haproxy",
            "address": lab.address("lb"),
            "admin_host": lab.address("lb"),
            "admin_port": ADMIN_PORT,
            "backend": BACKEND,
        },
        "oss": {
            "endpoint": f"http://{lab.address('oss')}:9000",
            "region": REGION,
            "bucket": BUCKET,
            "access_key_id": keys.OSS_ACCESS_KEY_ID,
            "access_key_secret": _file(lab, "oss-access-key-secret"),
            "s3_endpoint": f"https://{S3_HOST}:{S3_PORT}",
            "s3_ca": {"file": str(lab.directory / "ca.pem")},
        },
        # Without a watcher (lab/orchestrator.py), each minute's check keeps what a failover needs.
        "failover": {"fence_command": fence_command(lab), "check_every_s": 60},
        # WAL stays on the nodes unless a test wants it in the bucket; then nothing more is needed than the word.
        "backup": {
            "age_recipients": [keys.age_recipient(lab)],
            "signing_secret": _file(lab, "signing-secret"),
            "wal_passphrase": _file(lab, "wal-passphrase"),
        },
    }


def fence_command(lab: Topology) -> list[str]:
    """The lab's stand-in for a cloud's stop call; it works from any directory."""
    path = f"PYTHONPATH={REPOSITORY}"
    return ["env", path, sys.executable, "-m", "lab", "--name", lab.name, "fence", "{node}"]


def write_site(lab: Topology, installer: Installer, majors: Mapping[str, int]) -> None:
    """Write the lab's site file; and beside its state one for the disaster, the third node alone.

    Args:
        lab: the lab.
        installer: Harbor's.
        majors: the major version of PostgreSQL that each node's release ships.
    """
    _write(lab.site_file, site(lab, PAIR, installer, majors[PAIR[0]]))
    _write(lab.directory / "site-disaster.yml", site(lab, ("node-c",), installer, majors["node-c"]))


def _node(lab: Topology, node: str) -> dict[str, Any]:
    return {
        "address": lab.address(node),
        "user": "root",
        "private_key": _file(lab, "ssh-key"),
        "host_key": keys.ssh_pair(lab, f"{node}-host-key").public,
    }


def _file(lab: Topology, name: str) -> dict[str, str]:
    return {"file": str(lab.secrets / name)}


def _write(file: Path, content: dict[str, Any]) -> None:
    title = "# A site on one machine, written by `python -m lab up`; it is written anew each time.\n"
    file.write_text(title + yaml.safe_dump(content, sort_keys=False, width=110))


def _real_installer(path: Path) -> Installer:
    version = re.search(r"-(v\d+\.\d+\.\d+)", path.name)
    if not path.is_file() or version is None:
        raise LabError(
            f"HARBOR_INSTALLER names {path}, which is no Harbor offline installer.",
            remedy="Give the file as it was downloaded: harbor-offline-installer-v2.x.y.tgz.",
        )
    # Hundreds of megabytes: a warm `up` must not read them again.
    status = path.stat()
    notes = STATE / "installer-checksums.json"
    known: dict[str, str] = json.loads(notes.read_text()) if notes.exists() else {}
    key = f"{path} {status.st_size} {status.st_mtime_ns}"
    if key not in known:
        with path.open("rb") as stream:
            known[key] = hashlib.file_digest(stream, "sha256").hexdigest()
        notes.write_text(json.dumps(known, indent=1))
    return Installer(path, version[1], known[key])
