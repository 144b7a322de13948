"""The probe of a node, run on this machine."""

import json
import subprocess
from pathlib import Path
from typing import Any

from tasks import clock
from tasks.postgres.facts import NodeFacts
from tasks.postgres.facts_parser import parse_answer
from tasks.postgres.facts_query import FACTS_QUERY
from tasks.postgres.probe import NODE_PROBE
from tests.unit.local_postgres import programs

PROGRAMS = programs()


def request(root: Path, **changes: Any) -> dict[str, Any]:
    """What to look at: nothing exists until a test makes it."""
    return {
        "limit_s": 4.0,
        "harbor_s": 2.0,
        "images": True,
        "runs_postgres": True,
        "runs_harbor": True,
        "bin_dir": PROGRAMS or str(root / "bin"),
        "conf_dir": str(root / "conf"),
        "unit": "harbor-ha-test-of-no-unit.service",
        "data_dir": str(root / "data"),
        "socket_dir": str(root),
        "port": 5999,
        "database": "registry",
        "query": FACTS_QUERY,
        "nas_path": str(root),
        "install_dir": str(root / "harbor"),
        "https_port": 1,
        "hostname": "harbor.example",
        "state_dir": str(root / "state"),
        "guard_file": str(root / "guard.json"),
        "shared_files": {"paused": str(root / "nas" / "paused.json")},
        "peers": [],
        "port_s": 1.2,
        **changes,
    }


def look(wanted: dict[str, Any], name: str = "node-a", source: str = "") -> NodeFacts:
    started = clock.now()
    done = subprocess.run(
        ["python3", "-c", source or NODE_PROBE],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return parse_answer(name, json.loads(done.stdout), started, clock.now(), "direct")
