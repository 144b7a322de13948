"""Whose a cluster of Debian's postgresql-common is: its name may be taken by somebody else's database."""

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
