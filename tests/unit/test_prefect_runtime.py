"""Prefect, as it is locked, starts.

Prefect 3.8.8 with a newer fastapi installs without a complaint, and its server dies at import. Tests of flows
do not notice, because they import the client only.
"""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.servers


def test_the_server_can_be_imported() -> None:
    from prefect.server.api.server import create_app

    assert callable(create_app)


def test_the_command_line_starts() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "version"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Version" in done.stdout
