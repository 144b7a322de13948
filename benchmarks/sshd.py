"""An SSH server in a process of its own: what SSH costs the orchestrator is measured, what it costs a node is not.

The server is paramiko's, which needs many times the CPU of OpenSSH.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import SecretStr

from benchmarks.site import ROOT
from blocks import SshHost


@contextmanager
def sshd_process() -> Iterator[SshHost]:
    """Serve on loopback; yields the node to connect to."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.sshd"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            said = json.loads(process.stdout.readline())
            key = SecretStr(said.pop("private_key"))
            yield SshHost(**said, private_key=key)
        finally:
            process.stdin.close()


def _serve() -> None:
    from tests.unit.local_sshd import running_sshd

    with running_sshd({}) as node:
        said = {name: getattr(node, name) for name in ("name", "address", "port", "user", "host_key")}
        print(json.dumps({**said, "private_key": node.private_key.get_secret_value()}), flush=True)
        sys.stdin.read()  # until whoever started it has enough


if __name__ == "__main__":
    _serve()
