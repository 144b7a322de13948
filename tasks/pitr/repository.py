"""The repository as pgBackRest on a node sees it: its state, its base backups, and commands on it."""

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from blocks import HarborSite
from tasks.errors import HarborHaError
from tasks.hosts.connection import Completed, Host
from tasks.pitr.errors import RepositoryBusy, repository_error
from tasks.pitr.settings import PATHS, Paths, command, stanza_of

# `info` of a repository that does not answer takes 4 times the io-timeout.
_INFO_S = 90.0
# An archive-push that is under way holds the lock; it ends within its time-out.
_LOCK_WAIT_S = 90.0


@dataclass(frozen=True)
class BaseBackup:
    """One base backup.

    Attributes:
        label: pgBackRest's name for it.
        started, stopped: when; only times after `stopped` can be reached from it.
        system_identifier: of the database.
        major: of PostgreSQL.
        archive_id: the directory of its WAL in the repository.
        wal_start: the first WAL segment that it needs.
        size: bytes of the database.
    """

    label: str
    started: datetime
    stopped: datetime
    system_identifier: str
    major: int
    archive_id: str
    wal_start: str
    size: int


@dataclass(frozen=True)
class RepositoryState:
    """What `pgbackrest info` says.

    Attributes:
        system_identifiers: of the databases that were in this stanza, the present one last.
        backups: whole ones, oldest first.
    """

    system_identifiers: tuple[str, ...]
    backups: tuple[BaseBackup, ...]


def pgbackrest(
    site: HarborSite, host: Host, name: str, *options: str, timeout: float, paths: Paths = PATHS
) -> Completed:
    """Run a command of pgBackRest as the server's user; waits while another one holds its lock.

    Raises:
        RepositoryError, StorageError: with one sentence that says why.
    """
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        argv = command(site, name, *options, paths=paths)
        done = host.run(argv, user="postgres", timeout=timeout, check=False)
        if done.exit_status == 0:
            return done
        error = repository_error(done.stderr or done.stdout, host.name)
        if not isinstance(error, RepositoryBusy) or time.monotonic() > deadline:
            raise error
        time.sleep(1.0)


def repository_state(site: HarborSite, host: Host, paths: Paths = PATHS) -> RepositoryState:
    """Read the repository.

    Raises:
        RepositoryError, StorageError: it cannot be read.
    """
    done = pgbackrest(site, host, "info", "--output=json", timeout=_INFO_S, paths=paths)
    # With a wrong passphrase its message quotes what came out, control characters and all.
    return parse_info(json.loads(done.stdout, strict=False), stanza_of(site), host.name)


def parse_info(answer: list[dict[str, Any]], stanza: str, where: str) -> RepositoryState:
    """Read the answer of `info`; raises the error that is in it."""
    found = next((each for each in answer if each["name"] == stanza), None)
    if found is None:
        return RepositoryState((), ())
    for repository in found.get("repo", []):
        if repository["status"]["code"] > _NO_DATA:
            raise _error_of(repository["status"], where)
    databases = {each["id"]: each for each in found["db"]}
    archives = {each["database"]["id"]: each["id"] for each in found["archive"]}
    backups = [
        BaseBackup(
            label=each["label"],
            started=datetime.fromtimestamp(each["timestamp"]["start"], UTC),
            stopped=datetime.fromtimestamp(each["timestamp"]["stop"], UTC),
            system_identifier=str(databases[each["database"]["id"]]["system-id"]),
            major=int(databases[each["database"]["id"]]["version"]),
            archive_id=archives[each["database"]["id"]],
            wal_start=each["archive"]["start"],
            size=each["info"]["size"],
        )
        for each in found["backup"]
        if not each.get("error") and each["archive"]["start"]
    ]
    identifiers = tuple(str(databases[key]["system-id"]) for key in sorted(databases))
    return RepositoryState(identifiers, tuple(sorted(backups, key=lambda backup: backup.stopped)))


# `info`'s codes up to this one mean: nothing there yet. Beyond it: it could not be read.
_NO_DATA = 3


def _error_of(status: dict[str, Any], where: str) -> HarborHaError:
    return repository_error(str(status.get("message", "")), where)
