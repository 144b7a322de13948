"""prepare deletes the configuration before it reads harbor.yml; a running Harbor must survive that."""

import hashlib
import tarfile
from pathlib import Path
from typing import Any

import pytest

from blocks import HarborSite
from tasks.errors import HarborHaError, Refused
from tasks.harbor import installer, prepare
from tasks.harbor.installer import ChecksumMismatch
from tests.unit.harbor_site import NodeInDirectory, make_site, program

pytestmark = pytest.mark.servers


TEMPLATE = (Path(__file__).parent / "harbor_templates" / "v2.13.yml").read_text()

# Harbor's contract in ten lines: wipes first, draws secrets, can be told to fail or to be killed.
PREPARE = """
cd "$(dirname "$0")"
echo "$TERM $host $*" >> calls
mkdir -p input && cp harbor.yml input/
rm -rf common/config && mkdir -p common/config
[ -e die ] && kill -9 $$
[ -e fail ] && echo 'Error happened in config validation...' && cat fail && exit 255
mkdir -p common/config/core common/config/jobservice
echo "SECRET=$(date +%N)" > common/config/core/env
echo x > common/config/jobservice/env
printf "version: '2.3'\\nservices: {}\\n" > docker-compose.yml
"""


@pytest.fixture
def site(tmp_path: Path) -> HarborSite:
    return make_site(
        tmp_path, version="v2.13.2", install_dir=str(tmp_path / "harbor"), data_volume=str(tmp_path / "data")
    )


# Compose 2, which takes every file; and 1.25 of Debian 11, for which a file without `version` is one of 2014.
PLUGIN = """
case "$*" in
  "compose version") echo 'Docker Compose version 2.26.1' ;;
  "compose version --short") echo 2.26.1 ;;
  "compose config -q")
    [ ! -e refuse ] || { echo "services.core.environment.X: invalid '$(cat refuse)'" >&2; exit 15; } ;;
  *) exit 1 ;;
esac
"""
COMPOSE_1_25 = """
echo "$*" >> compose-calls
case "$*" in
  "version --short") echo 1.25.0 ;;
  "config -q")
    for file in docker-compose.yml docker-compose.override.yml; do
      [ ! -e $file ] || grep -q "^version: '*2.3" $file || { echo "Unsupported config option in $file" >&2; exit 1; }
    done ;;
  *) exit 1 ;;
esac
"""


@pytest.fixture
def home(site: HarborSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An unpacked installer, on a node with compose 2."""
    directory = Path(site.harbor.install_dir)
    directory.mkdir()
    (directory / "harbor.yml.tmpl").write_text(TEMPLATE)
    program(directory, "prepare", PREPARE)
    program(tmp_path / "compose", "docker", PLUGIN)
    monkeypatch.setenv("PATH", f"{tmp_path / 'compose'}:/usr/bin:/bin")
    return directory


@pytest.fixture
def old_compose(tmp_path: Path, home: Path) -> None:
    """The node has docker-compose 1.25, and its Harbor writes no `version`, as from 2.12 on."""
    program(tmp_path / "compose", "docker", "exit 1")
    program(tmp_path / "compose", "docker-compose", COMPOSE_1_25)
    program(home, "prepare", PREPARE.replace("version: '2.3'\\n", ""))


@pytest.fixture
def node(tmp_path: Path) -> NodeInDirectory:
    return NodeInDirectory("node-a", tmp_path / "state")


def configured(site: HarborSite, node: NodeInDirectory, database: str = "10.20.0.11") -> bool:
    """Write harbor.yml; whether it changed."""
    return prepare.configure(site, node.as_host(), database_host=database).changed


def prepared(site: HarborSite, node: NodeInDirectory, **options: Any) -> bool:
    """Run prepare; whether it changed anything."""
    return prepare.prepare(site, node.as_host(), **options).changed


def test_harbor_yml_comes_from_the_template_and_is_closed_to_others(
    site: HarborSite, home: Path, node: NodeInDirectory
) -> None:
    assert configured(site, node)
    assert (home / "harbor.yml").stat().st_mode & 0o777 == 0o600
    assert (home / "tls/server.key").stat().st_mode & 0o777 == 0o600
    assert not configured(site, node)


def test_a_key_that_became_readable_for_others_is_closed_again(
    site: HarborSite, home: Path, node: NodeInDirectory
) -> None:
    configured(site, node)
    (home / "tls/server.key").chmod(0o644)
    assert configured(site, node)
    assert (home / "tls/server.key").stat().st_mode & 0o777 == 0o600


def test_without_an_installer_there_is_nothing_to_configure(site: HarborSite, node: NodeInDirectory) -> None:
    with pytest.raises(HarborHaError, match="Unpack the installer first"):
        configured(site, node)


def test_prepare_runs_once_for_one_configuration(site: HarborSite, home: Path, node: NodeInDirectory) -> None:
    configured(site, node)
    assert prepared(site, node)
    assert not prepared(site, node)
    assert len((home / "calls").read_text().splitlines()) == 1


@pytest.mark.parametrize("change", ["database", "certificate", "components", "half deleted"])
def test_prepare_runs_again_when_what_it_depends_on_changed(
    change: str, site: HarborSite, home: Path, node: NodeInDirectory
) -> None:
    configured(site, node)
    prepared(site, node)
    if change == "database":
        configured(site, node, "10.20.0.12")
    elif change == "certificate":
        (home / "tls/server.crt").write_text("renewed")
    elif change == "components":
        site.harbor.components = ["trivy"]
    else:
        (home / "common/config/core/env").unlink()
    assert prepared(site, node)
    assert not prepared(site, node)


def test_the_environment_of_the_orchestrator_does_not_reach_harbors_scripts(
    site: HarborSite, home: Path, node: NodeInDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("host", "evil.example.com")
    configured(site, node)
    prepared(site, node)
    assert (home / "calls").read_text() == "dumb  \n"


def test_a_failed_prepare_leaves_the_configuration_from_before(
    site: HarborSite, home: Path, node: NodeInDirectory
) -> None:
    configured(site, node)
    prepared(site, node)
    before = (home / "common/config/core/env").read_bytes()
    (home / "fail").touch()
    configured(site, node, "10.20.0.12")
    with pytest.raises(prepare.PrepareFailed, match="config validation"):
        prepared(site, node)
    assert (home / "common/config/core/env").read_bytes() == before
    assert not (home / "input").exists(), "its copy of harbor.yml has all the passwords"
    (home / "fail").unlink()
    assert prepared(site, node)


@pytest.mark.parametrize(
    ("running", "said"),
    [
        ("true", "the running Harbor is as it was"),
        ("false", "stands still on this node"),
        ("", "no Harbor has run"),
    ],
)
def test_a_refusal_says_whether_harbor_runs(
    running: str, said: str, site: HarborSite, home: Path, node: NodeInDirectory, tmp_path: Path
) -> None:
    """It said "as it was" of a Harbor that the same run had stopped to copy its database."""
    program(tmp_path / "compose", "docker", f"[ $1 != inspect ] || {{ echo {running}; exit 0; }}\n" + PLUGIN)
    configured(site, node)
    (home / "fail").touch()
    with pytest.raises(prepare.PrepareFailed, match=said):
        prepared(site, node)


def test_what_prepare_quotes_of_harbor_yml_is_not_passed_on(
    site: HarborSite, home: Path, node: NodeInDirectory
) -> None:
    configured(site, node)
    secrets = [site.harbor.admin_password.get_secret_value(), site.redis.password.get_secret_value()]
    (home / "fail").write_text(f"found '{secrets[0]}' and redis://:{secrets[1]}@10.20.0.10:6379/1")
    with pytest.raises(prepare.PrepareFailed, match="redis://") as caught:
        prepared(site, node)
    assert not any(secret in str(caught.value) for secret in secrets)


def test_a_prepare_that_was_killed_is_repeated_and_its_copy_is_not_lost(
    site: HarborSite, home: Path, node: NodeInDirectory
) -> None:
    configured(site, node)
    prepared(site, node)
    before = (home / "common/config/core/env").read_bytes()
    # As if the whole machine had lost power in the middle: wiped, and the copy aside.
    aside = home / ".harbor-ha-before-prepare"
    (home / "common/config").rename(home / "moved")
    aside.mkdir()
    (home / "moved").rename(aside / "config")
    (aside / "docker-compose.yml").write_text("services: {}\n")
    (home / "fail").touch()
    with pytest.raises(prepare.PrepareFailed):
        prepared(site, node)
    assert (home / "common/config/core/env").read_bytes() == before


def test_a_harbor_yml_that_prepare_would_die_of_is_not_given_to_it(
    site: HarborSite, home: Path, node: NodeInDirectory
) -> None:
    configured(site, node)
    file = home / "harbor.yml"
    file.write_text(file.read_text().replace("data_volume: ", "data_volume: /x # "))
    with pytest.raises(Refused, match="would not survive"):
        prepared(site, node)
    assert not (home / "calls").exists()


def test_the_override_gets_the_version_line_that_prepare_wrote(
    site: HarborSite, home: Path, node: NodeInDirectory
) -> None:
    (home / "docker-compose.override.yml").write_text("services: {}\n")
    configured(site, node)
    prepared(site, node)
    assert "version: '2.3'" in (home / "docker-compose.override.yml").read_text()


@pytest.mark.usefixtures("old_compose")
def test_an_old_compose_gets_the_version_line_that_a_new_harbor_does_not_write(
    site: HarborSite, home: Path, node: NodeInDirectory
) -> None:
    (home / "docker-compose.override.yml").write_text("services: {}\n")
    configured(site, node)
    assert prepared(site, node)
    assert (home / "docker-compose.yml").read_text() == "version: '2.3'\nservices: {}\n"
    assert "version: '2.3'" in (home / "docker-compose.override.yml").read_text()
    assert not prepared(site, node)


@pytest.mark.usefixtures("old_compose")
def test_a_prepare_that_an_operator_ran_by_hand_does_not_leave_an_old_compose_without_its_line(
    site: HarborSite, home: Path, node: NodeInDirectory
) -> None:
    configured(site, node)
    prepared(site, node)
    (home / "docker-compose.yml").write_text("services: {}\n")
    assert prepared(site, node)
    assert (home / "docker-compose.yml").read_text().startswith("version: '2.3'\n")
    assert len((home / "calls").read_text().splitlines()) == 1


def test_a_new_compose_is_left_with_the_file_that_prepare_wrote(
    site: HarborSite, home: Path, node: NodeInDirectory
) -> None:
    program(home, "prepare", PREPARE.replace("version: '2.3'\\n", ""))
    configured(site, node)
    prepared(site, node)
    assert (home / "docker-compose.yml").read_text() == "services: {}\n"


def test_files_that_compose_does_not_take_are_replaced_by_those_from_before(
    site: HarborSite, home: Path, node: NodeInDirectory
) -> None:
    override = home / "docker-compose.override.yml"
    override.write_text("services: {}\n")
    configured(site, node)
    prepared(site, node)
    before = (home / "common/config/core/env").read_bytes()
    # The operator's entry, which only compose can judge; its words may quote a password.
    override.write_text("services: {core: {environment: {X: hunter2-hunter2$}}}\nversion: '3'\n")
    mine = override.read_bytes()
    (home / "refuse").write_text("hunter2-hunter2$")
    configured(site, node, "10.20.0.12")
    with pytest.raises(prepare.PrepareFailed, match=r"docker compose 2.26.1 .*services.core") as failed:
        prepared(site, node)
    assert "hunter2" not in str(failed.value)
    assert (home / "common/config/core/env").read_bytes() == before
    assert override.read_bytes() == mine
    (home / "refuse").unlink()
    assert prepared(site, node)


def test_prepare_is_not_run_where_there_is_no_compose(
    site: HarborSite, home: Path, node: NodeInDirectory, tmp_path: Path
) -> None:
    program(tmp_path / "compose", "docker", "exit 1")
    program(tmp_path / "compose", "docker-compose", "exit 127")
    configured(site, node)
    with pytest.raises(HarborHaError, match="neither"):
        prepared(site, node)
    assert not (home / "calls").exists()


class Docker:
    """A `docker` on the path that remembers which images it has."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images = directory / "images"
        self.calls = directory / "docker-calls"
        body = f"""
echo "$@" >> {self.calls}
case $1 in
  load) echo goharbor/core:v1 > {self.images}; echo 'Loaded image: goharbor/core:v1' ;;
  image) test -e {self.images} ;;
esac
"""
        program(directory / "bin", "docker", body)
        monkeypatch.setenv("PATH", f"{directory / 'bin'}:/usr/bin:/bin")


@pytest.fixture
def package(tmp_path: Path, site: HarborSite, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An offline installer, and a place on the node for its upload."""
    monkeypatch.setattr(installer, "DOWNLOAD_DIR", str(tmp_path / "cache"))
    source = tmp_path / "pack" / "harbor"
    source.mkdir(parents=True)
    for name in ("harbor.yml.tmpl", "install.sh", "harbor.v2.13.2.tar.gz"):
        (source / name).write_text(name)
    package = tmp_path / "harbor.tgz"
    with tarfile.open(package, "w:gz") as archive:
        archive.add(source, "harbor")
    site.harbor.installer = str(package)
    site.harbor.sha256 = hashlib.sha256(package.read_bytes()).hexdigest()
    return package


def test_the_installer_is_unpacked_and_its_images_loaded_once(
    tmp_path: Path, site: HarborSite, package: Path, node: NodeInDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = Docker(tmp_path, monkeypatch)
    assert installer.install(site, node.as_host()).changed
    assert (Path(site.harbor.install_dir) / "install.sh").exists()
    assert not installer.install(site, node.as_host()).changed
    assert docker.calls.read_text().count("load") == 1


def test_images_that_somebody_removed_are_loaded_again(
    tmp_path: Path, site: HarborSite, package: Path, node: NodeInDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = Docker(tmp_path, monkeypatch)
    installer.install(site, node.as_host())
    docker.images.unlink()
    assert installer.install(site, node.as_host()).changed


def test_unpacking_over_an_existing_harbor_keeps_its_configuration(
    tmp_path: Path, site: HarborSite, package: Path, node: NodeInDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    Docker(tmp_path, monkeypatch)
    home = Path(site.harbor.install_dir)
    (home / "common/config").mkdir(parents=True)
    (home / "harbor.yml").write_text("mine")
    (home / "install.sh").write_text("old")
    installer.install(site, node.as_host())
    assert (home / "harbor.yml").read_text() == "mine"
    assert (home / "common/config").is_dir()
    assert (home / "install.sh").read_text() == "install.sh"
    assert not Path(f"{home}.harbor-ha.new").exists()


def test_a_file_with_another_checksum_is_refused_before_it_is_uploaded(
    site: HarborSite, package: Path, node: NodeInDirectory
) -> None:
    site.harbor.sha256 = "0" * 64
    with pytest.raises(ChecksumMismatch, match="nothing was unpacked"):
        installer.install(site, node.as_host())
    assert not Path(site.harbor.install_dir).exists()


def test_a_download_with_another_checksum_is_not_unpacked_and_not_kept(
    tmp_path: Path, site: HarborSite, package: Path, node: NodeInDirectory
) -> None:
    cached = tmp_path / "cache" / f"installer-{'0' * 16}.tgz"
    cached.parent.mkdir()
    cached.write_bytes(b"an error page")
    site.harbor.installer, site.harbor.sha256 = "https://files.example.com/harbor.tgz", "0" * 64
    with pytest.raises(ChecksumMismatch):
        installer.install(site, node.as_host())
    assert not Path(site.harbor.install_dir).exists()
    assert not cached.exists()
