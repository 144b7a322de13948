"""What root writes into a directory of another user follows nothing that this user has put there."""

import ast
import base64
import hashlib
import io
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tasks.backup.night.on_node import pack_links
from tasks.backup.restore.on_node import make_links, receive_blobs
from tasks.harbor.on_node import secret_files, storage
from tasks.hosts import connection
from tasks.hosts.directories import make_directory
from tasks.on_node import lib, pg_disk, pg_log
from tasks.postgres.on_node import cluster_create, pg_archive, pg_follow, pg_rewind
from tasks.storage.on_node import blob_producer
from tests.unit.local_host import local_host
from tests.unit.test_node_programs import MODULES, ROOT

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can write where it should not")
OTHER = 10000


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A directory of another user, who may put there what he likes."""
    for above in (tmp_path, *tmp_path.parents):
        if above.stat().st_uid == 0 and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o011)
    directory = tmp_path / "theirs"
    directory.mkdir()
    return directory


@pytest.fixture
def precious(tmp_path: Path) -> Iterator[Path]:
    """A file of root's that must be afterwards what it was before."""
    file = tmp_path / "precious"
    file.write_text("root:secret\n# a comment\n")
    file.chmod(0o600)
    yield file
    assert file.read_text() == "root:secret\n# a comment\n"
    assert (file.stat().st_uid, file.stat().st_mode & 0o777) == (0, 0o600)


def give(path: Path, uid: int = OTHER) -> None:
    """Give a path, and what is in it, to the other user."""
    for entry in [path, *path.rglob("*")]:
        os.chown(entry, uid, uid, follow_symlinks=False)


def plant(link: Path, target: Path) -> None:
    """Let the other user plant a link."""
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
    os.chown(link, OTHER, OTHER, follow_symlinks=False)


DIGEST = "sha256:" + "0" * 64


def receive(path: Path) -> None:
    digest = "sha256:" + hashlib.sha256(b"blob").hexdigest()
    assert receive_blobs.receive(str(path), io.BytesIO(b"blob"), digest, 4) == ""


WRITERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "a server's file": ("file", lambda d: pg_disk.write_durably(f"{d}/file", "text")),
    "Harbor's file": ("file", lambda d: lib.write(f"{d}/file", b"text", 0o644)),
    "start.conf": ("start.conf", lambda d: pg_disk.set_start_conf({"conf": str(d)}, "manual")),
    "standby.signal": ("standby.signal", lambda d: pg_disk.set_standby_signal({"data": str(d)})),
    "a secret": ("secretkey", lambda d: secret_files.place(f"{d}/secretkey", b"0123456789abcdef")),
    "a link of the registry": (
        "repositories/library/x/_layers/sha256/0/link",
        lambda d: make_links.make(str(d), "library/x/_layers/sha256/0/link", DIGEST),
    ),
    "what the orchestrator puts": ("file", lambda d: put(d / "file")),
    "what the orchestrator puts as another": ("file", lambda d: put(d / "file", f"{OTHER}:{OTHER}")),
}


def put(path: Path, owner: str = "root:root") -> None:
    """Write a file as `Host.put` does."""
    given = {"path": str(path), "data": base64.b64encode(b"text").decode(), "mode": 0o644, "owner": owner}
    run_program(connection.PUT, given)


def run_program(program: str, given: Any) -> None:
    subprocess.run([sys.executable, "-c", program], input=json.dumps(given).encode(), timeout=30, check=True)


@as_root
@pytest.mark.parametrize("writer", WRITERS)
def test_a_link_under_the_temporary_name_is_not_written_through(
    writer: str, theirs: Path, precious: Path
) -> None:
    name, write = WRITERS[writer]
    plant(theirs / f"{name}.harbor-ha.tmp", precious)
    give(theirs)
    write(theirs)
    written = theirs / name
    assert written.is_file()
    assert not written.is_symlink()


@as_root
@pytest.mark.parametrize("writer", WRITERS)
def test_a_link_in_the_place_of_the_directory_leads_nowhere(
    writer: str, theirs: Path, tmp_path: Path
) -> None:
    roots = tmp_path / "roots"
    roots.mkdir()
    plant(theirs / "place", roots)
    give(theirs)
    with pytest.raises((OSError, subprocess.CalledProcessError)):
        WRITERS[writer][1](theirs / "place")
    assert list(roots.iterdir()) == []
    assert roots.stat().st_uid == 0


@as_root
def test_links_of_root_and_links_to_what_is_their_makers_are_followed(theirs: Path, tmp_path: Path) -> None:
    # Data directories lie on other disks: the operator's link, or that of the user postgres, must go on working.
    (theirs / "disk").mkdir()
    (theirs / "own").symlink_to("disk")
    give(theirs)
    (tmp_path / "roots").symlink_to(theirs)
    pg_disk.write_durably(str(theirs / "own" / "one"), "1")
    pg_disk.write_durably(str(tmp_path / "roots" / "disk" / "two"), "2")
    assert sorted(path.name for path in (theirs / "disk").iterdir()) == ["one", "two"]


@as_root
def test_a_blob_is_not_written_through_a_link(theirs: Path, precious: Path) -> None:
    name = hashlib.sha256(b"blob").hexdigest()
    final = theirs / "blobs" / "sha256" / name[:2] / name / "data"
    plant(Path(f"{final}.harbor-ha.tmp"), precious)
    give(theirs)
    receive(theirs)
    assert final.read_bytes() == b"blob"
    assert (final.stat().st_uid, final.stat().st_mode & 0o777) == (OTHER, 0o644)


@as_root
def test_directories_of_a_blob_are_not_made_behind_a_link(theirs: Path, tmp_path: Path) -> None:
    roots = tmp_path / "roots"
    roots.mkdir()
    plant(theirs / "blobs", roots)
    give(theirs)
    with pytest.raises(OSError, match="leads to what is not his"):
        receive(theirs)
    assert list(roots.iterdir()) == []


@as_root
@pytest.mark.parametrize("file", ["start.conf", "postgresql.auto.conf"])
def test_a_file_that_is_written_again_is_not_read_through_a_link(
    file: str, theirs: Path, precious: Path
) -> None:
    # /etc/shadow as postgresql.auto.conf would be copied, line by line, into a file of the user postgres.
    plant(theirs / file, precious)
    give(theirs)
    p = {"conf": str(theirs), "data": str(theirs)}
    with pytest.raises(OSError, match="no regular file"):
        pg_disk.set_start_conf(p, "manual") if file == "start.conf" else pg_follow.clean_auto_conf(p)
    assert (theirs / file).is_symlink()


@as_root
def test_evidence_is_not_copied_through_a_link(
    theirs: Path, precious: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(theirs / "pg_wal" / "00000002.history", precious)
    (theirs / "global").mkdir()
    (theirs / "global" / "pg_control").write_bytes(b"control")
    give(theirs)
    monkeypatch.setattr(pg_rewind, "segment_size", lambda p: 16 << 20)
    monkeypatch.setattr(pg_rewind, "only_archived", lambda *given: [])
    p = {"data": str(theirs), "state_dir": str(tmp_path / "state"), "operation": "o", "archive": "/nowhere"}
    with pytest.raises(OSError, match="no regular file"):
        pg_rewind.keep_evidence(p, 1, "0/0")


@as_root
def test_an_archive_that_a_link_stands_for_is_not_given_away(
    theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = tmp_path / "roots"
    (roots / "archive").mkdir(parents=True)
    (roots / "archive" / ("0" * 24)).touch()
    plant(theirs / "place", roots)
    give(theirs)
    monkeypatch.setattr(pg_archive, "segment_owner", lambda path: "another")
    with pytest.raises(OSError, match="leads to what is not his"):
        pg_archive.set_archive_aside(f"{theirs}/place/archive", "1")
    assert [path.name for path in roots.iterdir()] == ["archive"]


@as_root
def test_a_half_made_cluster_is_not_moved_behind_a_link(
    theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = tmp_path / "roots"
    (roots / "main").mkdir(parents=True)
    (roots / "main" / "file").touch()
    plant(theirs / "15", roots)
    give(theirs)
    monkeypatch.setattr("subprocess.run", lambda *given, **more: None)
    given = {"data": f"{theirs}/15/main", "conf": "/none/15/main", "major": "15", "cluster": "main"}
    with pytest.raises(OSError, match="leads to what is not his"):
        cluster_create.set_aside(given)
    assert [path.name for path in roots.iterdir()] == ["main"]


@as_root
def test_the_registrys_directory_on_the_nas_is_made_and_not_what_a_link_leads_to(
    theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(theirs / "registry", tmp_path / "missing")
    give(theirs)
    monkeypatch.setattr(storage, "mounts", lambda: {str(theirs): "0:1"})
    with pytest.raises(OSError, match="registry"):
        storage.bind({"nas": str(theirs), "target": str(tmp_path / "target")})
    assert not (tmp_path / "missing").exists()


@as_root
def test_the_owner_of_a_directory_is_set_on_the_directory_and_not_behind_a_link(
    theirs: Path, tmp_path: Path
) -> None:

    roots = tmp_path / "roots"
    roots.mkdir()
    plant(theirs / "archive", roots)
    give(theirs)
    user = "daemon"
    with pytest.raises(Exception, match="archive"):
        make_directory(local_host(), f"{theirs}/archive", mode=0o700, owner=user)
    assert (roots.stat().st_uid, roots.stat().st_mode & 0o777) == (0, 0o755)
    make_directory(local_host(), f"{theirs}/fine", mode=0o700, owner=user)
    made = (theirs / "fine").stat()
    assert (pwd.getpwuid(made.st_uid).pw_name, made.st_mode & 0o777) == (user, 0o700)


# What changes a file by its name. It follows what another user has put there; tasks/on_node/files.py does not.
BY_NAME = {
    "os": {
        *("chown", "chmod", "lchown", "rename", "renames", "replace", "link", "mkdir", "makedirs"),
        *("truncate", "utime", "mkfifo", "mknod", "removedirs"),
    },
    "shutil": {"copy", "copy2", "copyfile", "copymode", "copystat", "copytree", "move", "rmtree", "chown"},
}
# Directories that only root can enter or write: the state directory, and a package list that is made by mkdtemp.
ROOTS_OWN = {
    "tasks.on_node.authority": {"os.makedirs", "os.open"},
    "tasks.hosts.on_node.supply_probe": {"os.makedirs", "open"},
}


def writes_by_name(tree: ast.AST) -> set[str]:
    """Name the calls of a program that change a file by its name."""
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name, words = ast.unparse(node.func), ast.unparse(node)
        module, _, function = name.rpartition(".")
        creates = name == "os.open" and "O_CREAT" in words
        opened = name == "open" and _mode(node).strip("rbt") != ""
        if (
            creates
            or opened
            or function in BY_NAME.get(module, ())
            or (function.startswith("write_") and (module.startswith("Path")))
        ):
            found.add(name)
    return found


# What opens a file by its name to read it: what another user has put there may lead to any file of root's.
READ_AND_WHY = {
    "tasks.guard.on_node.guard_look": "the guard's own program, which only root writes",
    "tasks.harbor.on_node.install": "the installer, in a directory of root's",
    "tasks.harbor.on_node.storage": "/proc",
    "tasks.hosts.on_node.nas_mount": "/proc and /etc/fstab",
    "tasks.hosts.on_node.preflight_probe": "/proc, /etc, our records; of core's environment only the host is looked at",
    "tasks.hosts.on_node.probe_reading": "of what lies in others' directories single values are told, of a known form",
    "tasks.hosts.on_node.supply_probe": "/etc, and a package list in a directory of mkdtemp",
    "tasks.on_node.files": "the root directory, from which every step is opened",
    "tasks.on_node.lib": "configuration in root's directories; what is another user's is read by `regular_bytes`",
    "tasks.on_node.pg_cluster": "of postgresql.conf only the data directory is told",
    "tasks.on_node.pg_disk": "of what lies in postgres' directories single values; not what is written again",
    "tasks.on_node.pg_processes": "/proc, and the number in postmaster.pid",
    "tasks.postgres.on_node.cluster_create": "our record",
}


def reads_by_name(tree: ast.AST) -> set[str]:
    """Name the calls of a program that open a file by its name to read it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name, words = ast.unparse(node.func), ast.unparse(node)
            opened = name == "open" and not _mode(node).strip("rbt")
            by_name = name == "os.open" and "dir_fd" not in words and "O_CREAT" not in words
            if opened or by_name or name.rpartition(".")[2] in ("read_bytes", "read_text"):
                found.add(name)
    return found


@pytest.mark.parametrize("name", MODULES)
def test_a_program_reads_by_name_only_where_no_other_user_gains_by_it(name: str) -> None:
    tree = ast.parse(Path(import_module(name).__file__ or "").read_text())
    assert bool(reads_by_name(tree)) == (name in READ_AND_WHY)


SENT = hashlib.sha256(b"root:secret\n# a comment\n").digest()


@as_root
def test_no_blob_that_is_a_link_is_sent_to_the_bucket(theirs: Path, precious: Path) -> None:
    name = SENT.hex()
    (theirs / name[:2] / name).mkdir(parents=True)
    plant(theirs / name[:2] / name / "data", precious)
    give(theirs)
    out = io.BytesIO()
    blob_producer.send(str(theirs), SENT, out)
    assert b"secret" not in out.getvalue()
    assert out.getvalue()[32:40] == (2**64 - 2).to_bytes(8, "big")


@as_root
def test_a_tag_that_is_a_link_or_a_pipe_is_damaged_and_not_followed(theirs: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("sha256:" + "a" * 64)
    current = theirs / "repositories/library/a/_manifests/tags/v1/current"
    current.mkdir(parents=True)
    (current / "link").write_text("sha256:" + "b" * 64)
    (entry,) = os.scandir(current)
    (current / "link").unlink()
    plant(current / "link", outside)
    give(theirs)
    # Between the look at the directory and the opening somebody has put a link there.
    assert pack_links.content_of("library/a/_manifests/tags/v1/current/link", entry) is None


@as_root
def test_a_secret_that_is_a_link_is_given_to_no_other_node(theirs: Path, precious: Path) -> None:
    plant(theirs / "secretkey", precious)
    give(theirs)
    with pytest.raises(OSError, match="no regular file"):
        secret_files.work({"give": str(theirs / "secretkey")})


@as_root
def test_a_log_that_is_a_link_is_not_told(theirs: Path, precious: Path) -> None:
    plant(theirs / "postgresql.log", precious)
    give(theirs)
    assert "secret" not in pg_log.log_since(str(theirs / "postgresql.log"), 0)


def _mode(call: ast.Call) -> str:
    given = [*call.args[1:2], *[word.value for word in call.keywords if word.arg == "mode"]]
    return "".join(mode.value if isinstance(mode, ast.Constant) else "?" for mode in given)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "tasks.on_node.files"])
def test_no_program_for_a_node_changes_a_file_by_its_name(name: str) -> None:
    module: ModuleType = import_module(name)
    tree = ast.parse(Path(module.__file__ or "").read_text())
    assert writes_by_name(tree) <= ROOTS_OWN.get(name, set())


def test_texts_that_are_sent_as_programs_write_no_file_by_its_name() -> None:
    # A program in a string is not in a folder on_node, and no test of programs sees it.
    found = {
        str(path.relative_to(ROOT)): names
        for path in sorted((ROOT / "tasks").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "import " in node.value
        for names in [writes_in_text(node.value)]
        if names
    }
    # On the NAS, in our own directory 0700, with O_EXCL and O_NOFOLLOW, as a process that may hang.
    assert found == {"tasks/on_node/shared_copy.py": {"os.open", "os.makedirs", "os.replace"}}


def writes_in_text(text: str) -> set[str]:
    try:
        return writes_by_name(ast.parse(text))
    except (SyntaxError, ValueError):
        return set()


def test_the_shell_gives_nothing_away_by_name() -> None:
    # `install -d -o postgres` and `chown` follow a link in the last place.
    words = ('"install", "-d"', '"chown"', "install -d -o", "chown ")
    for path in sorted((ROOT / "tasks").rglob("*.py")):
        if "on_node" not in path.parts:
            text = path.read_text()
            assert [word for word in words if word in text] == [], path
