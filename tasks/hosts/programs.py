"""The programs that run on the nodes: files of `tasks/remote`, checked like all others, sent as text."""

import functools
from pathlib import Path

_DIRECTORY = Path(__file__).resolve().parent.parent / "remote"


@functools.cache
def program(name: str) -> str:
    """Return the source of a node program, for `Host.python`."""
    return (_DIRECTORY / f"{name}.py").read_text(encoding="utf-8")
