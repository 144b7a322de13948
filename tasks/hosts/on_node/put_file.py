"""Runs on a node: write a small file if its content, mode or owner differ."""

import base64
import grp
import json
import os
import pwd
import stat
import sys
from typing import Any, Dict, Tuple

from tasks.on_node.files import make_directories, opened_regular, set_directory, write_file


def owner_of(words: str) -> Tuple[int, int]:
    """Return the numbers of `user:group`, which are names or numbers."""
    user, group = words.split(":")
    uid = int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
    return uid, int(group) if group.isdigit() else grp.getgrnam(group).gr_gid


def same(p: Dict[str, Any], data: bytes, owner: Tuple[int, int]) -> bool:
    """Tell whether the file is there as it should be."""
    try:
        with opened_regular(p["path"]) as source:
            info = os.fstat(source.fileno())
            mode = stat.S_IMODE(info.st_mode)
            return (source.read(), mode, info.st_uid, info.st_gid) == (data, p["mode"]) + owner
    except OSError:
        # Not there, or a link: the file that is written takes its place.
        return False


def put(p: Dict[str, Any]) -> bool:
    """Write the file, or make the directory if no `data` is given; tell whether anything was changed."""
    owner = owner_of(p["owner"])
    if p.get("data") is None:
        set_directory(p["path"], p["mode"], owner)
        return True
    data = base64.b64decode(p["data"])
    if same(p, data, owner):
        return False
    make_directories(os.path.dirname(p["path"]), 0o755)
    return write_file(p["path"], data, p["mode"], owner)


if __name__ == "__main__":
    print(json.dumps(put(json.load(sys.stdin))))
