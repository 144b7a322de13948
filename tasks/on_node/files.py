"""Part of node programs: what root writes where another user may have put something first.

The directories of PostgreSQL and Harbor belong to their users. A link that the user postgres had planted under the
name of our temporary file made root write, and give away, the file that it pointed to. So nothing is reached by its
name twice: the directory is opened once, step by step, and everything happens inside of what was opened; a file is
made anew or not at all; owner and mode are set on what was made.
"""

import contextlib
import os
import shutil
import stat
from typing import IO, Iterator, Optional, Set, Tuple

# As many as Linux follows in one path.
_MAX_LINKS = 40
_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_ANEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
Owner = Optional[Tuple[int, int]]


class Planted(OSError):
    """A link or something else lies where it could lead a privileged write astray."""


@contextlib.contextmanager
def opened_directory(path: str, make: Optional[int] = None) -> Iterator[int]:
    """Open a directory to work in.

    A link on the way is followed if root has made it, or if it ends in a directory of whoever made it: there he
    could write without us.

    Args:
        path: the directory; absolute.
        make: the mode of directories that are missing on the way; None: it must be there.

    Raises:
        Planted: a link of another user leads to what is not that user's.
        OSError: it is not there, or no directory.
    """
    handle, makers = _reach(path, make)
    try:
        owner = os.fstat(handle).st_uid
        for maker in sorted(makers - {0, os.geteuid()}):
            if maker != owner:
                raise Planted(
                    "a link on the way to %s belongs to user %d and leads to what is not his" % (path, maker)
                )
        yield handle
    finally:
        os.close(handle)


def _reach(path: str, make: Optional[int]) -> Tuple[int, Set[int]]:
    makers: Set[int] = set()
    left, links = [part for part in path.split("/") if part], 0
    here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while left:
            following = _next(here, left[0], make)
            info = os.fstat(following)
            if stat.S_ISLNK(info.st_mode):
                links += 1
                target = os.readlink("", dir_fd=following)
                os.close(following)
                if links > _MAX_LINKS:
                    raise Planted("%s: too many links" % path)
                makers.add(info.st_uid)
                left = [part for part in target.split("/") if part] + left[1:]
                if not target.startswith("/"):
                    continue
                following = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            else:
                left = left[1:]
            os.close(here)
            here = following
        if not stat.S_ISDIR(os.fstat(here).st_mode):
            raise NotADirectoryError("%s is no directory" % path)
    except BaseException:
        os.close(here)
        raise
    return here, makers


def _next(here: int, name: str, make: Optional[int]) -> int:
    try:
        # As a directory first: that is what makes an automount mount.
        return os.open(name, _STEP | os.O_DIRECTORY, dir_fd=here)
    except FileNotFoundError:
        if make is None:
            raise
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, make, dir_fd=here)
        return os.open(name, _STEP | os.O_DIRECTORY, dir_fd=here)
    except OSError:
        return os.open(name, _STEP, dir_fd=here)


def make_directories(path: str, mode: int, owner: Owner = None) -> None:
    """Make a directory and what is missing above it; those that are made get the owner.

    Raises:
        Planted, OSError: see `opened_directory`.
    """
    missing = []
    while path not in ("", "/") and not os.path.lexists(path):
        missing.append(os.path.basename(path))
        path = os.path.dirname(path)
    with opened_directory(path) as handle:
        here = os.dup(handle)
    try:
        for name in reversed(missing):
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, mode, dir_fd=here)
                give_away(here, name, owner)
            following = os.open(name, _STEP | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = following
    finally:
        os.close(here)


def give_away(where: int, name: str, owner: Owner, mode: Optional[int] = None) -> None:
    """Give a directory that lies in an opened one to a user, if we are root; never what a link leads to."""
    handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=where)
    try:
        if mode is not None:
            os.fchmod(handle, mode)
        if owner is not None and os.geteuid() == 0:
            os.fchown(handle, owner[0], owner[1])
    finally:
        os.close(handle)


def set_directory(path: str, mode: int, owner: Owner) -> None:
    """Make a directory, or give the one that is there this owner and mode.

    Raises:
        Planted, OSError: something else has its name.
    """
    make_directories(os.path.dirname(path), 0o755)
    with opened_directory(os.path.dirname(path)) as where:
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.basename(path), 0o700, dir_fd=where)
        give_away(where, os.path.basename(path), owner, mode)


def new_directory(path: str, mode: int, owner: Owner = None) -> None:
    """Make an empty directory under a name that must be free."""
    with opened_directory(os.path.dirname(path)) as where:
        os.mkdir(os.path.basename(path), 0o700, dir_fd=where)
        give_away(where, os.path.basename(path), owner, mode)


@contextlib.contextmanager
def made_file(where: int, name: str, mode: int, owner: Owner = None) -> Iterator[IO[bytes]]:
    """Make a file in an opened directory; what had its name is removed, never written to. Durable at the end."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=where)
    handle = os.open(name, _ANEW, 0o600, dir_fd=where)
    try:
        with os.fdopen(handle, "wb") as target:
            yield target
            target.flush()
            if owner is not None and os.geteuid() == 0:
                os.fchown(target.fileno(), owner[0], owner[1])
            os.fchmod(target.fileno(), mode)
            os.fsync(target.fileno())
    except BaseException:
        # On a disk that ran full, what is left of a file takes the place of a whole one.
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=where)
        raise


def write_file(path: str, data: bytes, mode: int, owner: Owner = None, only_new: bool = False) -> bool:
    """Write a file whole or not at all, also when the machine crashes; its directory must be there.

    Args:
        owner: user and group; ours without.
        only_new: what is there stays.

    Returns:
        Whether it was written, which only `only_new` prevents.

    Raises:
        Planted, OSError: see `opened_directory`.
    """
    name = os.path.basename(path)
    temporary = name + ".harbor-ha.tmp"
    with opened_directory(os.path.dirname(path)) as where:
        with made_file(where, temporary, mode, owner) as target:
            target.write(data)
        written = put_in_place(where, temporary, name, only_new)
        sync_opened(where)
    return written


def put_in_place(where: int, temporary: str, name: str, only_new: bool = False) -> bool:
    """Give a file its name; tell whether it has it. The temporary name is gone in either case."""
    if not only_new:
        os.replace(temporary, name, src_dir_fd=where, dst_dir_fd=where)
        return True
    try:
        # link(2) fails when the name exists, which rename(2) does not.
        os.link(temporary, name, src_dir_fd=where, dst_dir_fd=where, follow_symlinks=False)
        return True
    except FileExistsError:
        return False
    finally:
        os.unlink(temporary, dir_fd=where)


def sync_opened(where: int) -> None:
    """Bring an opened directory's entries to the disk."""
    handle = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=where)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def opened_regular(path: str) -> Iterator[IO[bytes]]:
    """Open a file to read what will be written elsewhere: a link could make it any file of the machine.

    Raises:
        Planted: it is no regular file.
        OSError: it is not there.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with opened_directory(os.path.dirname(path)) as where:
        if not stat.S_ISREG(os.stat(os.path.basename(path), dir_fd=where, follow_symlinks=False).st_mode):
            raise Planted("%s is no regular file" % path)
        handle = os.open(os.path.basename(path), flags, dir_fd=where)
    with os.fdopen(handle, "rb") as source:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise Planted("%s is no regular file" % path)
        yield source


def regular_bytes(path: str) -> Optional[bytes]:
    """Read a small file that is a regular one; None when there is none."""
    try:
        with opened_regular(path) as source:
            return source.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def copy_file(source: str, directory: str) -> None:
    """Copy a regular file, with its times, into a directory of ours under the same name."""
    with opened_regular(source) as given, opened_directory(directory) as where:
        _copy(given, where, os.path.basename(source))


def _copy(source: IO[bytes], where: int, name: str) -> None:
    info = os.fstat(source.fileno())
    with made_file(where, name, 0o600) as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
        copy.flush()
        os.utime(copy.fileno(), ns=(info.st_atime_ns, info.st_mtime_ns))


def move(path: str, to: str) -> None:
    """Rename a file or directory."""
    with opened_directory(os.path.dirname(path)) as source, opened_directory(os.path.dirname(to)) as target:
        os.rename(os.path.basename(path), os.path.basename(to), src_dir_fd=source, dst_dir_fd=target)


def remove_tree(path: str) -> None:
    """Remove a directory with all that is in it, or the link that has its name; as far as that can be done."""
    try:
        with opened_directory(os.path.dirname(path)) as where:
            inside = "/proc/self/fd/%d/%s" % (where, os.path.basename(path))
            if os.path.islink(inside):
                os.unlink(os.path.basename(path), dir_fd=where)
            shutil.rmtree(inside, ignore_errors=True)
    except FileNotFoundError:
        return


@contextlib.contextmanager
def lock_file(path: str) -> Iterator[int]:
    """Open a file that is only there to be locked, in a directory that is made if it is missing."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with opened_directory(os.path.dirname(path), make=0o700) as where:
        handle = os.open(os.path.basename(path), flags, 0o600, dir_fd=where)
    try:
        yield handle
    finally:
        os.close(handle)
