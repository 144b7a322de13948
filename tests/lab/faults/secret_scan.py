"""Where a password of the site must never be seen: command lines while flows run, and everything that is kept."""

import base64
import re
import sqlite3
import threading
import time
from pathlib import Path
from urllib.parse import quote

from blocks.site_file import read_site_file
from lab.faults.stage import Stage
from lab.topology import NODES

_PERIOD_S = 0.2


def secrets_of(stage: Stage) -> dict[str, str]:
    """The site's secrets by what they are, each also as it travels in a header or an address."""
    site = read_site_file(stage.site_file)
    postgres, oss = site.postgres, site.oss
    assert oss is not None
    plain = {
        "application password": postgres.application.password.get_secret_value(),
        "replication password": postgres.replication.password.get_secret_value(),
        "rewind password": postgres.rewind.password.get_secret_value(),
        "admin password": site.harbor.admin_password.get_secret_value(),
        "redis password": site.redis.password.get_secret_value(),
        "OSS secret": oss.access_key_secret.get_secret_value(),
        "certificate key": body_of(site.harbor.certificate_key.get_secret_value()),
        "SSH key": body_of(site.nodes[0].private_key.get_secret_value()),
    }
    basic = base64.b64encode(f"admin:{plain['admin password']}".encode()).decode()
    encoded = {f"{name}, encoded": quote(text, safe="") for name, text in plain.items()}
    found = {**encoded, **plain, "admin password, Basic": basic}
    assert all(len(text) >= 8 for text in found.values()), "a secret is too short to be looked for"
    return found


def body_of(pem: str) -> str:
    """A line from the middle of a PEM text."""
    lines = [line for line in pem.splitlines() if "-----" not in line]
    return lines[len(lines) // 2]


class CommandLines:
    """Looks at the command lines of all processes, on this machine and in its containers, and keeps what shows a
    secret. The containers' processes are processes of this kernel, those of Harbor's own containers too.

    Args:
        secrets: what to look for, by name.
    """

    def __init__(self, secrets: dict[str, str]) -> None:
        self.seen: set[str] = set()
        self.looks = 0
        self._secrets = {name: text.encode() for name, text in secrets.items()}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the watch."""
        self._ended.set()
        self._thread.join(10)

    def _watch(self) -> None:
        while not self._ended.wait(_PERIOD_S):
            self.looks += 1
            for directory in Path("/proc").glob("[0-9]*"):
                try:
                    line = (directory / "cmdline").read_bytes()
                except OSError:
                    continue
                for name, text in self._secrets.items():
                    if text in line:
                        program = line.split(b"\0")[0].decode(errors="replace")
                        self.seen.add(f"{name} in the command line of {program}")


def in_prefect(stage: Stage, secrets: dict[str, str]) -> list[str]:
    """Name the tables of Prefect's database that hold a secret in clear: logs, parameters, artifacts, Blocks."""
    found: set[str] = set()
    for file in stage.orchestrator.directory.rglob("prefect.db"):
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as database:
            tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                for row in database.execute(f'SELECT * FROM "{table}"'):
                    text = "\n".join(str(value) for value in row)
                    found.update(
                        f"{name} in Prefect's {table}" for name, secret in secrets.items() if secret in text
                    )
    return sorted(found)


def in_orchestrators_files(stage: Stage, secrets: dict[str, str]) -> list[str]:
    """Name the files of the orchestrator that hold a secret and that others may read."""
    found = []
    for path in sorted(stage.lab.topology.directory.rglob("*")):
        mode = path.stat().st_mode & 0o777 if path.is_file() else 0
        told = path.suffix in (".log", ".records", ".writes", ".pushes")
        if mode & 0o077 or (mode and told):
            data = path.read_bytes()
            found += [
                f"{what} in {path.name} ({mode:o})" for what, text in secrets.items() if text.encode() in data
            ]
    return found


def on_nodes(stage: Stage, secrets: dict[str, str]) -> list[str]:
    """Name the files, journals and container logs of the nodes that hold a secret in clear.

    Harbor's own `prepare` writes its settings for its containers' user and group, mode 0640; these may be so, but
    no more than that.
    """
    patterns = "\n".join(sorted(set(secrets.values()))) + "\n"
    found = []
    for node in [name for name in NODES if stage.lab.is_running(name)]:
        done = stage.lab.exec(node, ["bash", "-c", _SCAN], stdin=patterns, timeout=240, check=False)
        own = re.compile(rf"{re.escape(stage.site.harbor.install_dir)}/common/config/.* \(640\)")
        found += [f"{node}: {line}" for line in done.stdout.splitlines() if not own.fullmatch(line)]
        assert done.returncode == 0, done.stderr
    return found


# The patterns are read from the input into a file of mode 0600 on a file system in memory, and removed at the end.
_SCAN = r"""
set -e
umask 077
file=$(mktemp /run/faults.XXXXXX)
trap 'rm -f $file' EXIT
cat > $file
journalctl --no-pager 2>/dev/null | grep -cFf $file | sed -n '/^0$/!s/$/ lines of the journal/p' || true
for container in $(docker ps -aq 2>/dev/null); do
  if docker logs $container 2>&1 | grep -qFf $file; then
    echo "docker logs of $(docker inspect -f '{{.Name}}' $container)"
  fi
done
find /var/log -type f -print0 | xargs -0r grep -laFf $file | sed 's/$/ (a log)/' || true
find / -xdev -type f -perm /077 -size -20M \
  -not -path '/proc/*' -not -path '/sys/*' -not -path '/usr/*' -not -path '/var/lib/docker/overlay2/*' -print0 \
  | xargs -0r grep -laFf $file 2>/dev/null \
  | while read -r path; do echo "$path ($(stat -c %a "$path"))"; done
exit 0
"""


def wait_for_looks(watch: CommandLines, count: int) -> None:
    """Wait until the watch has looked so many times."""
    deadline = time.monotonic() + 30
    while watch.looks < count and time.monotonic() < deadline:
        time.sleep(0.1)
