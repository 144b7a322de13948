"""Load a dump of Harbor's into the pair in one transaction, and count on both sides before it is committed."""

import re
import shutil
from collections.abc import Mapping

from blocks import HarborSite
from tasks.errors import Refused
from tasks.harbor.copied import differing
from tasks.hosts.connection import RemoteProcess

_END = "harbor-ha-end-of-counts"


def count_query(tables: list[str]) -> str:
    """Make one query that counts the rows of tables; they are quoted already by the server."""
    parts = [f"SELECT '{table.replace(chr(39), chr(39) * 2)}', count(*) FROM {table}" for table in tables]
    return " UNION ALL ".join(parts) or "SELECT NULL, 0 WHERE false"


def load(
    site: HarborSite, reading: RemoteProcess, writing: RemoteProcess, original: Mapping[str, int]
) -> list[str]:
    """Load a dump, and compare row counts before it is committed; the differences, for which it was rolled back."""
    _say(writing, f'BEGIN;\nSET ROLE "{_identifier(site.postgres.application.user)}";\n')
    shutil.copyfileobj(reading.stdout, writing.stdin, 1 << 20)
    reading.wait()
    # Asked in the transaction that did the load, so that a difference can still be rolled back.
    _say(writing, f"\n\\echo {_END}\n{count_query(sorted(original))};\n\\echo {_END}\n")
    differences = differing(original, _between_marks(writing, original))
    _say(writing, "ROLLBACK;\n" if differences else "COMMIT;\n")
    return differences


def _between_marks(writing: RemoteProcess, original: Mapping[str, int]) -> dict[str, int]:
    lines, marks = [], 0
    while marks < 2:
        raw = writing.stdout.readline()
        line = raw.decode("utf-8", "replace").rstrip("\n")
        if not raw:
            # psql has ended: an error of the load. Its message comes with its exit status.
            writing.close_stdin()
            writing.wait()
            return dict.fromkeys(original, -1)
        marks += line == _END
        if marks == 1 and line != _END:
            lines.append(line)
    return parsed(lines)


def parsed(lines: list[str]) -> dict[str, int]:
    """Read what `count_query` answers."""
    return {name: int(count) for name, count in (line.rsplit("\t", 1) for line in lines if "\t" in line)}


def _say(writing: RemoteProcess, text: str) -> None:
    writing.stdin.write(text.encode())
    writing.stdin.flush()


def _identifier(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name):
        raise Refused("The role's name cannot be used.", [f"postgres.application.user is {name!r}."])
    return name
