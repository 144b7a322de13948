"""Copy a Harbor's images from one directory to another, each blob proven by its digest; the source is only read.

A blob gets its name only when what was read back from the target has the digest that the name says: so what has a
name and the right size was proven, and a run that was killed goes on where it was. A blob whose source has other
content than its name is damaged in the old Harbor too: it is named and left out, since a registry never heals what
has a name already, and a push of it again does heal what has none.
"""

import contextlib
import hashlib
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Tuple

from tasks.on_node.files import (
    Planted,
    made_file,
    make_directories,
    opened_directory,
    opened_regular,
    put_in_place,
    regular_bytes,
    sync_opened,
)
from tasks.on_node.lib import payload, reply

REGISTRY = "docker/registry/v2"
HARBOR_USER = (10000, 10000)
BLOCK = 1 << 20
# A NAS answers slowly but in parallel; sha256 runs outside of Python's lock.
THREADS = 4
NAMED = 20


class Copied(NamedTuple):
    """What became of one file: `copied`, `there`, `gone` (deleted meanwhile) or `damaged`; and its bytes."""

    what: str
    size: int
    name: str


# A function that copies, and the name of what it copies.
Work = Tuple[Callable[[str, str, str], Copied], str]


def shelves(root: str) -> List[str]:
    """Name the directories that blobs lie in, by the first byte of their digest; Harbor knows no other than sha256."""
    base = root + "/" + REGISTRY + "/blobs"
    strange = sorted(set(listed(base)) - {"sha256"})
    if strange:
        sys.exit(base + " holds something else than sha256: " + ", ".join(strange[:3]))
    return ["sha256/" + shelf for shelf in listed(base + "/sha256")]


def missing_blobs(source: str, target: str, shelf: str) -> Tuple[int, List[str]]:
    """Compare a shelf on both sides: how many blobs are there with their size, and which are not."""
    given, place = (os.path.join(root, REGISTRY, "blobs", shelf) for root in (source, target))
    have, there, missing = set(listed(place)), 0, []
    for name in listed(given):
        if name in have and same_size(given + "/" + name + "/data", place + "/" + name + "/data"):
            there += 1
        else:
            missing.append(shelf + "/" + name)
    return there, missing


def same_size(one: str, other: str) -> bool:
    """Tell whether two files are there and have the same size; a link is no file of the same size."""
    try:
        return os.lstat(one).st_size == os.lstat(other).st_size
    except FileNotFoundError:
        return False


def links(root: str) -> Iterator[str]:
    """Name every file below the repositories, relative to the root; uploads that are under way left out."""
    base = root + "/" + REGISTRY
    for here, directories, names in os.walk(base + "/repositories", onerror=unless_gone):
        directories[:] = sorted(name for name in directories if name != "_uploads")
        for name in sorted(names):
            yield os.path.relpath(os.path.join(here, name), base)


def listed(directory: str) -> List[str]:
    """List a directory; nothing where there is none. What cannot be read is an error, not an empty place."""
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []


def unless_gone(error: OSError) -> None:
    """Pass over a directory that was deleted meanwhile; anything else is an error."""
    if not isinstance(error, FileNotFoundError):
        raise error


def copy_blob(source: str, target: str, name: str) -> Copied:
    """Copy one blob, unless it is there; proven by what the target gives back."""
    given, place = (os.path.join(root, REGISTRY, "blobs", name) for root in (source, target))
    try:
        size = os.lstat(given + "/data").st_size
        with contextlib.suppress(FileNotFoundError):
            if os.lstat(place + "/data").st_size == size:
                return Copied("there", size, name)
        wanted = name.rsplit("/", 1)[1]
        make_directories(place, 0o755, HARBOR_USER)
        with opened_directory(place) as where:
            return Copied(into_place(given + "/data", where, "data", wanted, name), size, name)
    except FileNotFoundError:
        if os.path.exists(given + "/data"):
            raise
        return Copied("gone", 0, name)
    except Planted:
        # Harbor makes none: whoever may write there has put a link in its place, to a file that he may not read.
        return Copied("damaged", 0, name)


def into_place(given: str, where: int, name: str, wanted: str, shown: str) -> str:
    """Write a copy beside its place, read it back, and give it its name when it has the digest.

    Until then nobody else can read it: a link at the blob's place once brought a file of root's here, 0644.
    """
    temporary = name + ".harbor-ha.tmp"
    with opened_regular(given) as source, made_file(where, temporary, 0o600) as copy:
        written = digest_of(source, copy)
    if written != wanted:
        os.unlink(temporary, dir_fd=where)
        return "damaged"
    handle = os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=where)
    with os.fdopen(handle, "rb") as back:
        # Else it is this machine's memory that is asked, not the NAS.
        os.posix_fadvise(back.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if digest_of(back) != wanted:
            os.unlink(temporary, dir_fd=where)
            sys.exit("The NAS gives back something else than was written, for blob " + shown + ".")
        if os.fstat(back.fileno()).st_nlink != 1:
            raise Planted("%s has another name besides, and is not given away" % temporary)
        if os.geteuid() == 0:
            os.fchown(back.fileno(), HARBOR_USER[0], HARBOR_USER[1])
        os.fchmod(back.fileno(), 0o644)
        os.fsync(back.fileno())
    put_in_place(where, temporary, name)
    sync_opened(where)
    return "copied"


def digest_of(source: Any, copy: Any = None) -> str:
    """Hash what a file gives, and write it on the way."""
    digest = hashlib.sha256()
    for block in iter(lambda: source.read(BLOCK), b""):
        digest.update(block)
        if copy is not None:
            copy.write(block)
    return digest.hexdigest()


def copy_link(source: str, target: str, name: str) -> Copied:
    """Copy one small file whose content may change, such as a tag's; what is equal stays."""
    given, place = (os.path.join(root, REGISTRY, name) for root in (source, target))
    try:
        data = regular_bytes(given)
    except Planted:
        data = None
    if data is None:
        return Copied("gone", 0, name)
    # What is no file there is replaced.
    with contextlib.suppress(Planted):
        if regular_bytes(place) == data:
            return Copied("there", 0, name)
    make_directories(os.path.dirname(place), 0o755, HARBOR_USER)
    with opened_directory(os.path.dirname(place)) as where:
        base = os.path.basename(place)
        with made_file(where, base + ".harbor-ha.tmp", 0o644, HARBOR_USER) as copy:
            copy.write(data)
        put_in_place(where, base + ".harbor-ha.tmp", base)
    return Copied("copied", len(data), name)


def link_is_there(target: str, name: str) -> bool:
    """Tell whether a link needs no copy. Only a tag's `current` ever changes; all others say what their path says."""
    return not name.endswith("/current/link") and os.path.exists(os.path.join(target, REGISTRY, name))


def work_list(pool: ThreadPoolExecutor, source: str, target: str, answer: Dict[str, Any]) -> Iterator[Work]:
    """Give what is to be copied, and count the rest: blobs first, so that no link leads to one that is not there."""
    for some in batches(shelves(source), 8):
        for there, missing in pool.map(lambda shelf: missing_blobs(source, target, shelf), some):
            answer["there"] += there
            answer["blobs"] += there + len(missing)
            for name in missing:
                yield copy_blob, name
    for names in batches(links(source), 64):
        for name, there in pool.map(lambda name: (name, link_is_there(target, name)), names):
            answer["there"] += there
            if not there:
                yield copy_link, name


def batches(items: Iterable[Any], size: int) -> Iterator[List[Any]]:
    """Cut a list into pieces."""
    batch: List[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def copy_images(given: Dict[str, Any]) -> Dict[str, Any]:
    """Copy what is missing until it is done or the time is over; then `whole` is false and it is called again."""
    source, target = given["source"], given["target"]
    if not os.path.isdir(source):
        sys.exit("The images' directory " + source + " is not there.")
    if not os.path.ismount(given["nas"]):
        sys.exit("The NAS is not mounted at " + given["nas"] + "; nothing was copied.")
    answer: Dict[str, Any] = {"copied": 0, "there": 0, "gone": 0, "damaged": 0, "bytes": 0, "blobs": 0}
    named: List[str] = []
    began = time.monotonic()
    # Counted from the first copy on: a look at a million that are there is no progress, and must come to its end.
    deadline = None
    if not os.path.isdir(target) or not os.path.samefile(source, target):
        make_directories(target, 0o755, HARBOR_USER)
        with ThreadPoolExecutor(THREADS) as pool:
            for batch in batches(work_list(pool, source, target, answer), 64):
                for done in pool.map(lambda item: item[0](source, target, item[1]), batch):
                    answer[done.what] += 1
                    answer["bytes"] += done.size if done.what == "copied" else 0
                    named += [done.name] if done.what == "damaged" else []
                if answer["copied"] and deadline is None:
                    deadline = time.monotonic() + given["limit_s"]
                if deadline is not None and time.monotonic() > deadline:
                    return dict(answer, whole=False, named=named[:NAMED], seconds=time.monotonic() - began)
    return dict(answer, whole=True, named=named[:NAMED], seconds=time.monotonic() - began)


if __name__ == "__main__":
    try:
        reply(copy_images(payload()))
    except OSError as failed:
        # A full NAS, a disk that cannot be read: what was proven stays, and the next run goes on.
        sys.exit("The images could not be copied: " + str(failed))
