"""Harbor's installer on a node: unpacked once, whatever a killed run left behind."""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from tasks.harbor.on_node import install
from tasks.node_program import node_program
from tasks.on_node import lib


def program(state: Path) -> list[str]:
    """The program as a node gets it, with its state in another place."""
    source = node_program(install).replace(lib.STATE_DIR, str(state))
    return [sys.executable, "-c", source]


def package(directory: Path) -> tuple[Path, str]:
    """An installer without images, large enough that two installations overlap."""
    template = directory / "harbor.yml.tmpl"
    template.write_bytes(os.urandom(16 << 20))
    archive = directory / "harbor.tgz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(template, "harbor/harbor.yml.tmpl")
    return archive, hashlib.sha256(archive.read_bytes()).hexdigest()


def test_of_two_installations_at_the_same_time_the_second_finds_the_work_of_the_first(tmp_path: Path) -> None:
    archive, sha256 = package(tmp_path)
    given: dict[str, Any] = {
        "install_dir": str(tmp_path / "harbor"),
        "sha256": sha256,
        "url": archive.as_uri(),
        "download_dir": str(tmp_path / "cache"),
    }
    both = [
        subprocess.Popen(
            program(tmp_path / "state"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in both:
        assert process.stdin is not None
        process.stdin.write(json.dumps(given))
        process.stdin.close()
    answers = sorted(json.loads(process.stdout.read())["state"] for process in both if process.stdout)
    assert [process.wait(30) for process in both] == [0, 0]
    assert answers == ["done", "unchanged"]
    assert (tmp_path / "harbor" / "harbor.yml.tmpl").exists()
    assert not list((tmp_path / "cache").glob("installer-*"))
