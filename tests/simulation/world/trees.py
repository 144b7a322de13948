"""Directories and files as `tasks.on_node.files` handles them: nobody plants a link in the simulated world."""

import contextlib
import os as real_os
from collections.abc import Iterator
from typing import Any

from tests.simulation.world.files import SIM_OS, SimFile, refuse, sim_open, text_of, write_durably
from tests.simulation.world.here import node, world


def make_directories(path: str, mode: int, owner: Any = None) -> None:
    """Stand for `make_directories`: a directory is there as soon as something lies in it."""
    refuse(node(), path, grows=False)


def new_directory(path: str, mode: int, owner: Any = None) -> None:
    """Stand for `new_directory`."""
    refuse(node(), path, grows=True)


def write_file(path: str, data: bytes, mode: int, owner: Any = None, only_new: bool = False) -> bool:
    """Stand for `write_file`."""
    if only_new and path in node().files:
        return False
    write_durably(path, data.decode())
    return True


def text_to_change(path: str) -> str:
    """Stand for `pg_disk.text_to_change`."""
    return text_of(path) or ""


def copy_file(source: str, directory: str) -> None:
    """Stand for `copy_file`: what lies there is marked as a copy."""
    write_durably(f"{directory}/{real_os.path.basename(source)}", f"copy of {source}")


def move(path: str, to: str) -> None:
    """Stand for `move`."""
    SIM_OS.rename(path, to)


def remove_tree(path: str) -> None:
    """Stand for `remove_tree`, and for `shutil.rmtree`."""
    place = node()
    gone = place.dirs.pop(path, None)
    keys = [key for key in place.files if key.startswith(path + "/")]
    for key in keys:
        del place.files[key]
    if gone is not None or keys:
        world().changed()


@contextlib.contextmanager
def lock_file(path: str) -> Iterator[SimFile]:
    """Stand for `lock_file`."""
    with sim_open(path, "w") as handle:
        yield handle
