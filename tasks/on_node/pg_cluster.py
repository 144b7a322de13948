"""Whose a cluster of Debian's postgresql-common is: its name may be taken by somebody else's database."""

import json
import os
import re
from typing import Optional

_DATA = re.compile(r"^[ \t]*data_directory[ \t]*=?[ \t]*'((?:[^'\n]|'')*)'", re.MULTILINE)


def data_elsewhere(conf: str, data: str) -> Optional[str]:
    """Give the data directory that a cluster's configuration names, if it is another one than ours.

    Args:
        conf: the cluster's configuration directory.
        data: where ours lies.

    Returns:
        None where there is no such cluster, or it is ours.
    """
    try:
        with open(conf + "/postgresql.conf", encoding="utf-8", errors="surrogateescape") as source:
            text = source.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    named = _DATA.findall(text)
    # Without such a line it is half made: pg_createcluster writes it after the file is there. The last one counts.
    path = named[-1].replace("''", "'") if named else data
    return None if os.path.realpath(path) == os.path.realpath(data) else path


def creation_open(intent: Optional[str], data: str, recorded: Optional[str], found: Optional[str]) -> bool:
    """Tell whether a creation of ours was begun here and not finished; a pure function.

    The intent alone says little: a node that died between the record and the removal of the intent keeps it for ever,
    and bootstrap took its primary for none. And what lay there later, somebody else's, was ours to move away.

    Args:
        intent: the text of the file; None when there is none.
        data: the data directory.
        recorded: the system identifier that we recorded at the end of a creation.
        found: the one that is there; None where no control file can be believed.
    """
    if intent is None:
        return False
    try:
        of = json.loads(intent).get("data", data)
    except (ValueError, AttributeError):
        of = data
    # Recorded is what was finished: it is that, or something that came later.
    return bool(of == data and not (recorded and found))
