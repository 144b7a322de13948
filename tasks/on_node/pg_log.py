"""Part of node programs: what the server has written to its log since it was told to start.

The log of a registry may have gigabytes and goes back for days. What an operator needs to read is what this start
said, and not the hundreds of clients that were cut off or turned away meanwhile.

Joined with the program that uses it by `tasks.node_source`; Python 3.6, standard library only.
"""

import os
import re
from typing import List

from tasks.on_node.files import Planted, opened_regular

# What a report can bear, and more than enough to find that in.
_LINES = 8
_READ_BYTES = 65536
# "user@database LEVEL:" of Debian's log_line_prefix; lines of the server's own processes name neither.
_OF_A_CLIENT = re.compile(r"\] \S+@\S+ [A-Z0-9]+: ")


def log_size(path: str) -> int:
    """Return the log's present end in bytes, for `log_since`; 0 when there is none yet."""
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0


def log_since(path: str, begin: int) -> str:
    """Return the last lines that were written after a point of the log: whole ones, repetitions once.

    Args:
        path: the server's log.
        begin: what `log_size` returned; a log that has become shorter was rotated and is read from its beginning.
    """
    size = log_size(path)
    begin = begin if begin <= size else 0
    first = max(begin, size - _READ_BYTES)
    if first == size:
        return "nothing was written to %s" % path
    lines = log_text(path, first, size - first).splitlines()
    if first > begin:
        # The first one has lost its beginning.
        del lines[0]
    own = [line for line in lines if not _OF_A_CLIENT.search(line)]
    return "\n".join(without_repetitions(own or lines)[-_LINES:])


def log_text(path: str, begin: int, size: int = -1) -> str:
    """Return a part of the log; what it is told goes to reports, and it belongs to the user postgres."""
    try:
        with opened_regular(path) as log:
            log.seek(begin)
            return log.read(size).decode("utf-8", "replace")
    except Planted as error:
        return str(error)


def without_repetitions(lines: List[str]) -> List[str]:
    """Return the lines without those that say again what the line before has said."""
    return [line for number, line in enumerate(lines) if number == 0 or line != lines[number - 1]]
