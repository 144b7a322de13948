"""The lab installs from where the machine itself installs, and from nowhere else."""

import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lab.apt import (
    Distribution,
    Source,
    chosen,
    default_release,
    is_served,
    own_sources,
    sources_of,
    this_distribution,
)
from lab.shell import LabError

_BOOKWORM = Distribution("debian", "bookworm", "12")


def _etc_apt(tmp_path: Path, **files: str) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    for name, text in files.items():
        kind = "sources" if text.startswith("Types") or "\nTypes" in text else "list"
        (tmp_path / "sources.list.d" / f"{name}.{kind}").write_text(text)
    return tmp_path


def test_a_mirror_of_the_distribution_is_found_in_both_formats(tmp_path: Path) -> None:
    etc = _etc_apt(
        tmp_path,
        debian="# a comment\nTypes: deb deb-src\nURIs: http://mirror.test/debian\n"
        "Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /k.gpg\n",
        security="deb [arch=amd64 signed-by=/k.gpg] http://mirror.test/sec bookworm-security main # why\n",
    )
    assert own_sources(_BOOKWORM, etc) == [
        Source("http://mirror.test/debian", "bookworm", ("main",)),
        Source("http://mirror.test/debian", "bookworm-updates", ("main",)),
        Source("http://mirror.test/sec", "bookworm-security", ("main",)),
    ]


def test_other_vendors_disabled_and_local_sources_are_left_out(tmp_path: Path) -> None:
    etc = _etc_apt(
        tmp_path,
        debian="deb http://mirror.test/debian bookworm main\n",
        vendor="deb https://vendor.test/apt bookworm stable\n",
        backports="deb http://mirror.test/debian bookworm-backports main\n",
        off="Types: deb\nEnabled: no\nURIs: http://off.test\nSuites: bookworm\nComponents: main\n",
        disc="deb cdrom:[Debian]/ bookworm main\n#deb http://commented.test bookworm main\n",
    )
    assert [source.uri for source in own_sources(_BOOKWORM, etc)] == ["http://mirror.test/debian"]


def test_a_machine_without_a_source_of_its_release_is_told_so(tmp_path: Path) -> None:
    etc = _etc_apt(tmp_path, debian="deb http://mirror.test/debian trixie main\n")
    with pytest.raises(LabError, match="No source of bookworm's packages"):
        own_sources(_BOOKWORM, etc)


def test_a_source_is_written_so_that_it_is_read_back_the_same(tmp_path: Path) -> None:
    source = Source("https://mirror.test/debian", "bookworm", ("main", "contrib"))
    assert own_sources(_BOOKWORM, _etc_apt(tmp_path, lab=source.deb822("/k.gpg"))) == [source]


def test_ubuntu_is_recognised_and_its_keyring_is_ubuntus(tmp_path: Path) -> None:
    release = tmp_path / "os-release"
    release.write_text(
        'NAME="Ubuntu"\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\nID=ubuntu\nID_LIKE=debian\n'
    )
    found = this_distribution(release)
    assert found == Distribution("ubuntu", "noble", "24.04")
    assert found.keyring == "/usr/share/keyrings/ubuntu-archive-keyring.gpg"


def test_another_system_is_refused_by_its_name(tmp_path: Path) -> None:
    release = tmp_path / "os-release"
    release.write_text('ID="fedora"\nPRETTY_NAME="Fedora Linux 42"\n')
    with pytest.raises(LabError, match="runs Fedora Linux 42"):
        this_distribution(release)


def test_another_release_of_debian_comes_from_the_same_places(tmp_path: Path) -> None:
    etc = _etc_apt(
        tmp_path,
        debian="deb http://mirror.test/debian bookworm main non-free-firmware\n"
        "deb http://mirror.test/debian bookworm-updates main\n",
        security="deb http://mirror.test/sec bookworm-security main\n",
    )
    assert sources_of(chosen("bullseye", _BOOKWORM), _BOOKWORM, etc) == [
        # Of all components only main is in every release.
        Source("http://mirror.test/debian", "bullseye", ("main",)),
        Source("http://mirror.test/debian", "bullseye-updates", ("main",)),
        Source("http://mirror.test/sec", "bullseye-security", ("main",)),
    ]
    assert sources_of(_BOOKWORM, _BOOKWORM, etc) == own_sources(_BOOKWORM, etc)


def test_a_release_that_this_machines_places_do_not_have_is_refused_with_those_that_they_have() -> None:
    assert chosen("trixie", _BOOKWORM) == Distribution("debian", "trixie", "13")
    assert chosen("bookworm", _BOOKWORM) is _BOOKWORM
    ubuntu = Distribution("ubuntu", "noble", "24.04")
    assert chosen("noble", ubuntu) is ubuntu
    with pytest.raises(LabError, match=r"buster.*bullseye, bookworm, trixie"):
        chosen("buster", _BOOKWORM)
    with pytest.raises(LabError, match=r"trixie.*noble"):
        chosen("trixie", ubuntu)


def test_nodes_run_the_release_before_the_newest_unless_the_machine_is_another_system() -> None:
    assert default_release(Distribution("debian", "trixie", "13")) == "bookworm"
    assert default_release(Distribution("ubuntu", "noble", "24.04")) == "noble"
    assert default_release(Distribution("debian", "forky", "14")) == "forky"


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A directory that is served as packages are, and its address."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    root = tmp_path / "mirror"
    root.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(root))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield root, f"http://127.0.0.1:{server.server_port}/debian"
        server.shutdown()


def test_a_place_says_whether_it_has_a_release(mirror: tuple[Path, str], tmp_path: Path) -> None:
    root, address = mirror
    etc = _etc_apt(tmp_path, debian=f"deb {address} bookworm main\n")
    there = root / "debian/dists/bullseye"
    there.mkdir(parents=True)
    (there / "InRelease").write_text("Suite: oldoldstable\n")
    assert is_served(Distribution("debian", "bullseye", "11"), _BOOKWORM, etc)
    assert not is_served(Distribution("debian", "buster", "10"), _BOOKWORM, etc)


def test_a_place_that_cannot_be_asked_has_not_said_that_it_lacks_a_release(tmp_path: Path) -> None:
    etc = _etc_apt(tmp_path, debian="deb http://127.0.0.1:1/debian bookworm main\n")
    assert is_served(Distribution("debian", "bullseye", "11"), _BOOKWORM, etc)
