"""`make test-matrix`: the road of the demo, and more, on nodes of every release; the table in docs/versions.md.

    python -m lab.matrix                 # all of them
    python -m lab.matrix trixie          # one of them

Each release gets a lab of its own, one after the other. What went well is taken away again, what failed stays. The
page is written as soon as one state of the code has gone the road on every release, at once or one by one.
"""

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from lab import apt
from lab.columns import PAGE, Column, keep, kept, render, state_of_code, write_page
from lab.demo import NAME, Demo, clean
from lab.shell import LabError
from lab.topology import NODES, REPOSITORY
from tasks.errors import HarborHaError
from tasks.harbor.api import HarborApi
from tasks.harbor.web import through_balancer
from tasks.hosts.connection import Host, connect
from tasks.postgres.sql import execute, value

# A base backup of the oldest cannot be read by the newest's PostgreSQL; a dump can.
OLDEST, NEWEST = "bullseye", "trixie"
# The miniature is another Harbor on each: the oldest one where compose is the oldest. Of today's Harbor with the oldest
# compose `make test` has a test.
HARBORS = {"bullseye": "2.3.2", "bookworm": "2.9.5", "trixie": "2.13.2"}

# Of this one the pair runs two minor versions, as in the week between two upgrades: node-b the one of the release,
# node-a the one with the security updates.
MIXED = "bookworm"

_ARRIVAL_S = 120.0

# What a node says of itself: a line for each thing, `name|version`.
_VERSIONS = r"""
say() { printf '%s|%s\n' "$1" "$2"; }
. /etc/os-release
say Debian "$(cat /etc/debian_version) ($VERSION_CODENAME)"
say PostgreSQL "$(dpkg-query -W -f '${Version}' "postgresql-$1")"
say pgBackRest "$(pgbackrest version | cut -d' ' -f2)"
say Docker "$(docker version --format '{{.Server.Version}}')"
if plugin=$(docker compose version --short 2>/dev/null); then say compose "$plugin, as \`docker compose\`"
else say compose "$(docker-compose version --short), as \`docker-compose\`"; fi
say 'Python on the node' "$(python3 --version | cut -d' ' -f2)"
say systemd "$(systemctl --version | sed -n '1s/^systemd [0-9]* (\(.*\))$/\1/p')"
say OpenSSH "$(ssh -V 2>&1 | sed 's/^OpenSSH_\([^ ,]*\).*/\1/')"
"""

# The oldest build that the node's package sources still have is the only one that apt may take.
_HOLD_BACK = r"""
apt-get -q update >&2
oldest=$(apt-cache madison "postgresql-$1" | awk '{print $3}' | sort -V | head -n 1)
printf 'Package: postgresql-%s postgresql-client-%s\nPin: version %s\nPin-Priority: 1001\n' "$1" "$1" "$oldest" \
  >/etc/apt/preferences.d/held-back
echo "$oldest"
"""


class Road(Demo):
    """The road of the demo on one release, with a drill, a base backup and a moment to come back to.

    Args:
        name: of the lab.
        release: of all nodes.
        newer: a release onto whose PostgreSQL the backup is restored in the end.
        mixed: node-b gets the oldest minor version of PostgreSQL that its release has, node-a the newest.
    """

    def __init__(self, name: str, release: str, newer: str | None = None, *, mixed: bool = False) -> None:
        # A real one is of one version.
        self.harbor = "" if os.environ.get("HARBOR_INSTALLER") else HARBORS[release]
        super().__init__(name, dict.fromkeys(NODES, release), self.harbor)
        self.column = Column(release)
        self.newer = newer
        self.mixed = mixed
        self.moment: datetime | None = None
        self.backed_up: list[str] = []

    def run(self) -> None:
        """Go the whole road; where it ends is in the column."""
        try:
            self._go()
        except (HarborHaError, subprocess.SubprocessError, OSError) as error:
            self.column.problem = str(error)
            print(f"\n{self.column.release} failed: {error}", flush=True)
        finally:
            self.column.results = {stage.title: stage.seconds for stage in self.stages}

    def _go(self) -> None:
        self.build()
        harbor = self.site.harbor.version + (", miniature" if self.harbor else "")
        self.column.versions = {
            **self._versions("node-a"),
            "Harbor": harbor,
            "Python of the orchestrator": platform.python_version(),
            "Prefect": importlib.metadata.version("prefect"),
        }
        if self.mixed:
            self.column.versions["PostgreSQL of node-b"] = self._versions("node-b")["PostgreSQL"]
        self._stage("base-backup: the primary into the bucket", lambda: self._flow("base-backup"))
        self.change_roles()
        self.back_up()
        self._stage("restore-drill: the newest backup, compared and thrown away", self._drill)
        self._stage("a moment, and what came after it", self._live_on)
        self._stage("both machines and the NAS are lost", self._lose_everything)
        self._stage(
            "disaster-restore: node-c at that moment, from base backup and WAL", self._return_to_moment
        )
        self._stage("a client pulls what was pushed before, and pushes", self._use)
        self._stage("node-c and the NAS are lost", self._lose_again)
        self._stage("disaster-restore: node-c from the nightly dump", self._restore)
        self._stage("a client pulls what was pushed before, and pushes", self._use)
        if self.newer:
            self._stage(f"node-c is installed anew as {self.newer}", lambda: self._lose_again(self.newer))
            self._stage("disaster-restore: the moment is refused, with the other way", self._refuse_moment)
            self._stage("disaster-restore: node-c from the nightly dump of the older", self._restore)
            self._stage("a client pulls what was pushed before, and pushes", self._use)
            onto = self._versions("node-c")
            self.column.versions["restored onto"] = f"PostgreSQL {onto['PostgreSQL']}"

    def _bring_up(self) -> str:
        result = super()._bring_up()
        self.site_file = self._with_wal(self.lab.site_file)
        if self.mixed:
            self._hold_back("node-b")
        return result

    def _hold_back(self, node: str) -> None:
        major = str(self.site.postgres.major)
        held = self.lab.exec(node, ["sh", "-c", _HOLD_BACK, "sh", major], timeout=300).stdout.strip()
        print(f"{node} is held back at PostgreSQL {held}", flush=True)

    def _apply_disaster(self) -> None:
        self.site_file = self._with_wal(self.lab.topology.directory / "site-disaster.yml")
        self.orchestrator.command("apply", str(self.site_file))

    def _with_wal(self, site_file: Path) -> Path:
        """Write the site file once more, with the WAL in the bucket."""
        document = yaml.safe_load(site_file.read_text())
        document["backup"]["wal_archive"] = "oss"
        file = self.lab.topology.directory / f"matrix-{site_file.name}"
        file.write_text(yaml.safe_dump(document, sort_keys=False))
        return file

    def _versions(self, node: str) -> dict[str, str]:
        major = str(self.site.postgres.major)
        said = self.lab.exec(node, ["sh", "-c", _VERSIONS, "sh", major]).stdout
        return dict(line.split("|", 1) for line in said.splitlines())

    def _drill(self) -> str:
        return self._flow("restore-drill", identity_file=self._disaster()["identity_file"])

    def _live_on(self) -> str:
        """Make a project, remember the moment, and make another one; both are in the WAL in the bucket."""
        primary = connect(self.site.node("node-a"))
        with HarborApi(through_balancer(self.site)) as api:
            api.ensure_project("before")
            self.moment = self._clock(primary)
            deadline = time.monotonic() + 5
            # The bucket tells times in whole seconds: the moment's own second must be over.
            while self._clock(primary) <= self.moment + timedelta(seconds=1):
                if time.monotonic() > deadline:
                    raise LabError("The primary's clock stands still.", where="node-a")
                time.sleep(0.1)
            api.ensure_project("after")
        self._ship(primary)
        return f"the moment is {self.moment.isoformat()}"

    def _clock(self, primary: Host) -> datetime:
        text = value(self.site, primary, "SELECT clock_timestamp() AT TIME ZONE 'UTC'")
        return datetime.fromisoformat(text).replace(tzinfo=UTC)

    def _ship(self, primary: Host) -> None:
        """Close the WAL segment and wait until it is in the bucket."""
        name = value(self.site, primary, "SELECT pg_walfile_name(pg_current_wal_lsn())")
        execute(self.site, primary, "SELECT pg_switch_wal()")
        archived = "SELECT coalesce(max(last_archived_wal), '') FROM pg_stat_archiver"
        deadline = time.monotonic() + _ARRIVAL_S
        while value(self.site, primary, archived) < name:
            if time.monotonic() > deadline:
                raise LabError(f"{name} is not in the bucket after {_ARRIVAL_S:.0f} s.", where="node-a")
            time.sleep(0.5)

    def _to_moment(self) -> dict[str, object]:
        assert self.moment is not None
        return {**self._disaster(), "to_time": self.moment.isoformat()}

    def _return_to_moment(self) -> str:
        self._apply_disaster()
        said = self._flow("disaster-restore", **self._to_moment())
        with HarborApi(through_balancer(self.site)) as api:
            projects = api.projects()
        if "before" not in projects or "after" in projects:
            raise LabError(f"This is not that moment: Harbor has the projects {projects}.", where="node-c")
        return said

    def _refuse_moment(self) -> str:
        self._apply_disaster()
        options = [word for key, given in self._to_moment().items() for word in ("--param", f"{key}={given}")]
        argv = [
            sys.executable,
            "-m",
            "deployments.cli",
            "run",
            "disaster-restore",
            "--site",
            self.name,
            "--watch",
        ]
        done = subprocess.run(
            [*argv, *options],
            env=self.orchestrator.environment,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=600,
        )
        said = done.stdout + done.stderr
        if not done.returncode or "directory fits its own version only" not in said:
            raise LabError(
                f"A base backup of another PostgreSQL was not refused: {said}", where="orchestrator"
            )
        # A look of the scheduled check leaves a note of its own there.
        begun = "command -v dockerd || command -v pg_ctlcluster || test -e /data/pgsql"
        if self.lab.exec("node-c", ["sh", "-c", begun], check=False).returncode == 0:
            raise LabError("The refusal came after node-c was changed.", where="node-c")
        return "refused before anything was changed"

    def back_up(self) -> None:
        """Everything into the bucket; what is pushed later is in the WAL alone."""
        super().back_up()
        self.backed_up = list(self.pushed)

    def _lose_again(self, release: str | None = None) -> str:
        # What was pushed after the last restore is lost with node-c: a pull of it was rightly answered with 404.
        self.pushed = list(self.backed_up)
        # It switches every machine on: the pair came back to life, and a restore was rightly refused.
        self.lab.recreate("node-c", release=release)
        return self._lose_everything()


def main(wanted: Sequence[str]) -> int:
    """Run the road on the releases that are wanted, or on all, and show the table; keep it when all are in it.

    Returns:
        the exit status: 0 when every road was gone to its end.
    """
    columns = [go(release) for release in wanted or apt.RELEASES]
    print(f"\n{render(columns)}")
    failed = [column for column in columns if column.problem]
    for column in failed:
        print(f"{column.release}: {column.problem}", file=sys.stderr)
    whole = kept(state_of_code())
    if not failed and len(whole) == len(apt.RELEASES):
        write_page(PAGE, render(whole))
    return 1 if failed else 0


def go(release: str) -> Column:
    """Go the road on one release, and keep its column."""
    print(f"\n##### nodes of {release}", flush=True)
    name = f"{'matrix' if NAME == 'demo' else NAME}-{release}"
    clean(name)
    code = state_of_code()
    road = Road(name, release, NEWEST if release == OLDEST else None, mixed=release == MIXED)
    road.run()
    if not road.column.problem and state_of_code() != code:
        road.column.problem = "what runs was changed while it ran"
    keep(road.column, code)
    if not road.column.problem:
        clean(name)
    return road.column


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
