"""The database container that a Harbor brings along: ask it, dump it, and see whether core has left it."""

from collections.abc import Callable

from blocks import HarborSite
from tasks.errors import Refused
from tasks.hosts.connection import Host
from tasks.on_node.bundled_core import ASK_CORE, CORE_FILE, uses_bundled

CONTAINER = "harbor-db"
_HAS_SETTINGS = "SELECT to_regclass('public.properties') IS NOT NULL"
# A Harbor whose settings were never saved has no such row.
_READ_ONLY = """
UPDATE properties SET v = 'true' WHERE k = 'read_only';
INSERT INTO properties (k, v) SELECT 'read_only', 'true'
  WHERE NOT EXISTS (SELECT 1 FROM properties WHERE k = 'read_only');
"""
_WRITABLE = "UPDATE properties SET v = 'false' WHERE k = 'read_only'"


def core_uses_it(site: HarborSite, source: Host) -> bool:
    """Whether the node's core, or the one that its files would make, has its rows in the bundled database."""
    made = source.run(ASK_CORE, check=False).stdout
    file = site.harbor.install_dir.rstrip("/") + CORE_FILE
    return uses_bundled(made or (source.read(file) or b"").decode("utf-8", "replace"))


def exists(source: Host) -> bool:
    """Whether its container is there, running or not."""
    return source.run(["docker", "inspect", CONTAINER], check=False).exit_status == 0


def runs(site: HarborSite, source: Host, *, required: bool) -> bool:
    """Whether its container runs.

    Raises:
        Refused: it does not, and it is required, or has data.
    """
    state = source.run(["docker", "inspect", "--format", "{{.State.Running}}", CONTAINER], check=False)
    if state.exit_status == 0 and state.stdout.strip() == "true":
        return True
    if required:
        raise Refused(
            f"{source.name} has a bundled database, but {CONTAINER} does not run.",
            [f"Start it (`docker start {CONTAINER}`) to have its data taken over."],
        )
    directory = f"{site.harbor.data_volume.rstrip('/')}/database"
    found = source.run(["find", directory, "-maxdepth", "2", "-name", "PG_VERSION"], check=False)
    if found.stdout.strip():
        raise Refused(
            f"{source.name} has a bundled database in {directory}, but {CONTAINER} does not run.",
            [
                f"Start it (`docker start {CONTAINER}`) to have its data taken over, or move {directory} away if"
                " the data is not wanted."
            ],
        )
    return False


def ask(source: Host, database: str) -> Callable[[str], list[str]]:
    """Give the way to query one of its databases."""
    argv = ["docker", "exec", "-i", CONTAINER, "psql", "-U", "postgres", "-XAtq", "-F", "\t", "-d", database]

    def asked(query: str) -> list[str]:
        return source.run(argv, stdin=query, timeout=300).stdout.splitlines()

    return asked


def dump(database: str) -> list[str]:
    """Give the argument list of pg_dump for one of its databases."""
    argv = ["docker", "exec", CONTAINER, "pg_dump", "-U", "postgres", "--no-owner", "--no-privileges"]
    return [*argv, "-d", database]


def end_writes(source: Host) -> None:
    """Have the next start of its Harbor be a read-only one: a core reads this once, when it starts.

    Stopped containers come back with the engine, and what they take then is in no copy.
    """
    _change(source, _READ_ONLY)


def allow_writes(source: Host) -> None:
    """Take `end_writes` back, where nothing of it was taken over."""
    _change(source, _WRITABLE)


def _change(source: Host, statements: str) -> None:
    registry = ask(source, "registry")
    if registry(_HAS_SETTINGS) == ["t"]:
        registry(statements)
