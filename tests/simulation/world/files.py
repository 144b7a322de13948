"""The files of a node as its programs see them: a dictionary, with disks that fill, turn read-only, or hang."""

import errno
import os as real_os
from typing import Any

from tests.simulation.world.here import node, world
from tests.simulation.world.machines import Branch, Data, Node
from tests.simulation.world.texts import SIM_JSON

RDWR = real_os.O_WRONLY | real_os.O_RDWR
NO_DIRECTORY = (".json", ".signal", ".service", "/promote", "/backup_label")
# State files that no guard looks at; a write of one need not wake it.
UNSEEN_BY_GUARDS = (
    "/lock.json",
    "/operation.json",
    "/term.json",
    "/last_primary.json",
    "/verdict.json",
    "/promotion.json",
    "/rewind.json",
    ".commits.json",
    "/start.conf",
    "sync.conf",
    ".service",
    "/paused.json",
    "/witnessed.json",
)


def on_data(place: Node, path: str) -> bool:
    """Tell on which of the two file systems a path is."""
    return path.startswith(place.data_path)


def await_disk(place: Node, path: str) -> None:
    """Hang as long as the disk does."""
    while on_data(place, path) and place.disk == "hang":
        world().engine.sleep(2.0)


def refuse(place: Node, path: str, *, grows: bool) -> None:
    """Raise what the kernel would."""
    if path.startswith("/run/"):
        return
    await_disk(place, path)
    state = place.disk if on_data(place, path) else place.root
    if state == "read-only":
        raise OSError(errno.EROFS, "Read-only file system", path)
    if state == "full" and grows:
        raise OSError(errno.ENOSPC, "No space left on device", path)


def text_of(path: str) -> str | None:
    """Stand for `pg_disk.text_of`."""
    place = node()
    if path.startswith("/proc/"):
        if path == "/proc/uptime":
            return f"{world().engine.now - place.booted_at:.2f} 0.00\n"
        if path == "/proc/sys/kernel/random/boot_id":
            return place.boot_id() + "-0000\n"
        return of_process(place, path)
    if not path.startswith(place.data_path):
        return shared_text(place, path) if path.startswith(world().nas_path) else place.files.get(path)
    if place.disk == "hang":
        await_disk(place, path)
    data, server = place.data, place.server
    if server is not None and path.endswith("/postmaster.pid"):
        status = {"recovering": "starting", "primary": "ready", "standby": "standby"}[server.state]
        status = "stopping" if server.stopping else status
        return f"{server.pid}\n{place.data_path}\n0\n5432\n\n*\n1 1\n{status}\n"
    if data is not None and path.endswith(".history"):
        return history_text(data, int(path[-16:-8], 16))
    return place.files.get(path)


def of_process(place: Node, path: str) -> str | None:
    """Read what the kernel tells of a server's process."""
    server = place.server
    if server is None or path.split("/")[2] != str(server.pid):
        return None
    if path.endswith("cmdline"):
        return "/usr/lib/postgresql/15/bin/postgres\0-D\0" + place.data_path
    ticks = int(max(server.started - place.booted_at, 0.0) * 100)
    return f"{server.pid} (postgres) S " + "0 " * 18 + f"{ticks} 0\n"


def history_text(data: Data, timeline: int) -> str | None:
    """Read the history file of a timeline of this directory's line; None for one that it is not on."""
    branch: Branch | None = data.branch
    while branch is not None and branch.timeline > timeline:
        branch = branch.parent
    while branch is not None and branch.parent is not None and branch.parent.timeline == timeline:
        branch = branch.parent
    if branch is None or branch.timeline != timeline or branch.parent is None:
        return None
    return "".join(
        f"{number}\t{at >> 32:X}/{at & 0xFFFFFFFF:X}\tsimulated\n" for number, at in branch.forks()
    )


def shared_text(place: Node, path: str) -> str | None:
    """Read a file on the NAS."""
    if not world().has_nas(place.name):
        raise OSError(errno.EIO, "Input/output error", path)
    return world().nas_files.get(path)


def read_shared(p: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Stand for `shared_copy.read_shared`."""
    place = node()
    if not p.get("nas_path") or not world().has_nas(place.name):
        return None
    text = world().nas_files.get(f"{p['nas_path']}/.harbor-ha/{p['site']}/{name}.json")
    return SIM_JSON.loads(text) if text else None


def keep_shared(p: dict[str, Any], name: str, text: str) -> bool:
    """Stand for `shared_copy.keep_shared`."""
    place = node()
    if not p.get("nas_path") or not world().has_nas(place.name):
        return False
    world().nas_files[f"{p['nas_path']}/.harbor-ha/{p['site']}/{name}.json"] = text
    return True


def drop_shared(p: dict[str, Any], name: str) -> bool:
    """Stand for `shared_copy.drop_shared`."""
    if not world().has_nas(node().name):
        return False
    world().nas_files.pop(f"{p['nas_path']}/.harbor-ha/{p['site']}/{name}.json", None)
    return True


def write_volatile(path: str, text: str) -> None:
    """Stand for `guard_note.write_volatile`: /run is in memory and takes it always."""
    place = node()
    if place.files.get(path) != text:
        place.files[path] = text
        place.heard = place.heard or (path.endswith("/held_start.json") and '"told": true' in text)
        if not path.endswith("/guard.json"):
            world().changed()


def write_durably(path: str, text: str, mode: int = 0o600, owner: str = "root") -> None:
    """Stand for `pg_disk.write_durably`."""
    place = node()
    if path.startswith(world().nas_path):
        shared_text(place, path)
        world().nas_files[path] = text
        return
    refuse(place, path, grows=True)
    if path.endswith("/lock.json"):
        world().on_lock(place, place.files.get(path), text)
    if path.endswith("/operation.json"):
        world().on_record(place, place.files.get(path), text)
    place.files[path] = text
    if not path.endswith(UNSEEN_BY_GUARDS):
        world().changed()


def remove_durably(path: str) -> bool:
    """Stand for `pg_disk.remove_durably`."""
    place = node()
    if path.startswith(world().nas_path):
        return shared_text(place, path) is not None and bool(world().nas_files.pop(path))
    await_disk(place, path)
    if path not in place.files:
        return False
    refuse(place, path, grows=False)
    del place.files[path]
    if not path.endswith(UNSEEN_BY_GUARDS):
        world().changed()
    return True


class SimFile:
    """An open file; what is written is there when it is closed."""

    def __init__(self, place: Node, path: str, mode: str) -> None:
        self.place, self.path, self.mode = place, path, mode
        self.text = "" if "w" in mode else place.files.get(path, "")
        self.key: str | None = None

    def __enter__(self) -> "SimFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, text: str) -> None:
        refuse(self.place, self.path, grows=True)
        self.text += text

    def read(self) -> str:
        return self.text

    def flush(self) -> None:
        pass

    def fileno(self) -> "SimFile":
        return self

    def close(self) -> None:
        if "w" in self.mode and self.text:
            self.place.files[self.path] = self.text
        unlock(self)


def sim_open(path: Any, mode: str = "r", **_: Any) -> SimFile:
    """Stand for `open`."""
    place = node()
    if isinstance(path, SimFile):
        return path
    if "w" in mode:
        refuse(place, path, grows=False)
    elif path not in place.files:
        raise FileNotFoundError(errno.ENOENT, "No such file", path)
    return SimFile(place, path, mode)


def unlock(handle: SimFile) -> None:
    """Give a file's lock back."""
    if handle.place.locks.get(handle.path) is handle:
        del handle.place.locks[handle.path]


class SimFcntl:
    """Stands for `fcntl`: locks that go with the program that holds them."""

    LOCK_EX, LOCK_NB, LOCK_UN, LOCK_SH = 2, 4, 8, 1

    @staticmethod
    def flock(handle: SimFile, kind: int) -> None:
        place = handle.place
        while True:
            held = place.locks.get(handle.path)
            if held is None or held is handle or held.owner.done or not held.owner.place.on:
                handle.owner = world().engine.current  # type: ignore[attr-defined]
                place.locks[handle.path] = handle
                return
            if kind & SimFcntl.LOCK_NB:
                raise BlockingIOError(errno.EAGAIN, "locked", handle.path)
            world().engine.sleep(0.2)


class SimPath:
    """Stands for `os.path`."""

    @staticmethod
    def exists(path: str) -> bool:
        place = node()
        if place.disk == "hang":
            await_disk(place, path)
        if path in place.files or path in place.dirs:
            return True
        if path.endswith(NO_DIRECTORY):
            return False
        inside = path + "/"
        return any(key.startswith(inside) for key in place.files)

    isdir = exists

    @staticmethod
    def ismount(path: str) -> bool:
        return path == world().nas_path and world().has_nas(node().name)

    @staticmethod
    def getsize(path: str) -> int:
        return 0

    @staticmethod
    def islink(path: str) -> bool:
        return path in node().files

    realpath = staticmethod(real_os.path.realpath)
    dirname = staticmethod(real_os.path.dirname)
    basename = staticmethod(real_os.path.basename)
    join = staticmethod(real_os.path.join)


class SimOs:
    """Stands for `os`, as far as the programs use it."""

    path = SimPath()
    O_RDONLY, O_WRONLY, O_CREAT, O_EXCL = real_os.O_RDONLY, real_os.O_WRONLY, real_os.O_CREAT, real_os.O_EXCL
    O_TRUNC, O_NOFOLLOW, O_DIRECTORY = real_os.O_TRUNC, real_os.O_NOFOLLOW, real_os.O_DIRECTORY
    environ = real_os.environ

    @staticmethod
    def makedirs(path: str, mode: int = 0o777, exist_ok: bool = False) -> None:
        pass

    @staticmethod
    def open(path: str, flags: int, mode: int = 0o777) -> SimFile:
        place = node()
        known = path in place.files
        if flags & RDWR or (flags & real_os.O_CREAT and not known):
            # The lock file of a node that was used before is there already.
            if not path.endswith(".lock"):
                refuse(place, path, grows=False)
        elif not known:
            raise FileNotFoundError(errno.ENOENT, "No such file", path)
        if flags & real_os.O_EXCL and known:
            raise FileExistsError(errno.EEXIST, "exists", path)
        return SimFile(place, path, "w" if flags & RDWR else "r")

    @staticmethod
    def write(handle: SimFile, data: bytes) -> int:
        handle.write(data.decode())
        return len(data)

    @staticmethod
    def fsync(handle: Any) -> None:
        pass

    @staticmethod
    def close(handle: SimFile) -> None:
        handle.close()

    @staticmethod
    def unlink(path: str) -> None:
        if not remove_durably(path):
            raise FileNotFoundError(errno.ENOENT, "No such file", path)

    remove = unlink

    @staticmethod
    def symlink(source: str, path: str) -> None:
        write_durably(path, source)

    @staticmethod
    def readlink(path: str) -> str:
        return node().files[path]

    @staticmethod
    def mkdir(path: str, mode: int = 0o777) -> None:
        refuse(node(), path, grows=True)

    @staticmethod
    def rmdir(path: str) -> None:
        node().dirs.pop(path, None)

    @staticmethod
    def listdir(path: str) -> list[str]:
        place = node()
        found = [key[len(path) + 1 :].split("/")[0] for key in place.files if key.startswith(path + "/")]
        return sorted({*found, *(["global"] if path in place.dirs else [])})

    @staticmethod
    def rename(source: str, target: str) -> None:
        place = node()
        refuse(place, source, grows=False)
        for key in [key for key in place.files if key == source or key.startswith(source + "/")]:
            place.files[target + key[len(source) :]] = place.files.pop(key)
        if source in place.dirs:
            place.dirs[target] = place.dirs.pop(source)
        world().changed()

    replace = rename

    @staticmethod
    def kill(pid: int, number: int) -> None:
        from tests.simulation.world.processes import send

        send(node(), pid, number)

    @staticmethod
    def sysconf(name: str) -> int:
        return 100

    @staticmethod
    def _exit(status: int) -> None:
        pass

    @staticmethod
    def getpid() -> int:
        return id(world().engine.current) % 100000

    @staticmethod
    def geteuid() -> int:
        return 0

    @staticmethod
    def chown(*_: Any) -> None:
        pass

    chmod = fchown = fchmod = sync = chown


SIM_OS = SimOs()
