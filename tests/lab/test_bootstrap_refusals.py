"""What bad input gets: one clear sentence before the first change, never half a site."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.lab.site import LabSite
from tests.unit.site_on_disk import certificate, ssh_host_key, ssh_private_key

NODE = "node-c"
Refused = Callable[..., str]


@pytest.fixture(scope="module", autouse=True)
def bare_node(standing_lab: Any) -> None:
    """All of this happens to a host that has nothing."""
    standing_lab.heal()
    standing_lab.recreate(NODE)


@pytest.fixture
def document(lab_site: LabSite) -> dict[str, Any]:
    """A site file of the one node, without a mistake."""
    return lab_site.document("site-disaster.yml")


@pytest.fixture
def refused(lab_site: LabSite, document: dict[str, Any], tmp_path: Path) -> Refused:
    """Run bootstrap, see that it refuses and changes nothing, and return what it says."""

    def run(**options: Any) -> str:
        before = lab_site.everything(NODE)
        refusal = lab_site.variant(document, tmp_path, **options).refusal
        assert lab_site.everything(NODE) == before
        assert "Nothing was changed." in refusal
        assert "->" in refusal
        return refusal

    return run


@pytest.fixture
def on_node(lab_site: LabSite) -> Iterator[Callable[[str, str], None]]:
    """Spoil something on the node, and put it right after the test: `on_node(spoil, repair)`."""
    repairs: list[str] = []

    def spoil(script: str, repair: str) -> None:
        repairs.append(repair)
        lab_site.shell(NODE, script)

    yield spoil
    for repair in reversed(repairs):
        lab_site.shell(NODE, repair)


def secret_file(directory: Path, name: str, text: str) -> dict[str, str]:
    path = directory / name
    path.write_text(text)
    path.chmod(0o600)
    return {"file": str(path)}


def test_a_site_without_a_mistake_would_be_built(lab_site: LabSite, document: dict[str, Any]) -> None:
    """The proof that each refusal below has its own reason."""
    run = lab_site.nursery.call(
        "correct",
        "tests.lab.site:bootstrap_of",
        site_file=str(lab_site.lab.topology.directory / "site-disaster.yml"),
        dry_run=True,
    ).wait(300)
    assert run.headline == f"Would bring up {lab_site.name}: primary {NODE}, no standby."


def test_a_wrong_ssh_key(document: dict[str, Any], refused: Refused, tmp_path: Path) -> None:
    document["nodes"][NODE]["private_key"] = secret_file(tmp_path, "stranger", ssh_private_key())
    said = refused()
    assert f"{NODE}: " in said
    assert "did not accept the key for user root" in said


def test_a_host_key_that_changed(document: dict[str, Any], refused: Refused) -> None:
    document["nodes"][NODE]["host_key"] = ssh_host_key()
    said = refused()
    assert "answered with another host key than the pinned one" in said
    assert "Nothing was sent to it" in said


def test_an_unsupported_system(refused: Refused, on_node: Callable[[str, str], None]) -> None:
    on_node(
        "printf 'ID=fedora\\nVERSION_ID=41\\n' > /run/os-release; mount --bind /run/os-release /etc/os-release",
        "umount /etc/os-release",
    )
    assert f"{NODE}: fedora 41 is not supported -> Debian 11 or Ubuntu 20.04, or newer" in refused()


def test_a_full_disk(refused: Refused, on_node: Callable[[str, str], None]) -> None:
    on_node("mkdir -p /data/pgsql; mount -t tmpfs -o size=64m none /data/pgsql", "umount /data/pgsql")
    said = refused()
    assert "/data/pgsql/data has 0.1 GB free -> make room for 5.4 GB" in said


@pytest.mark.parametrize("port", [443, 5432])
def test_a_port_in_use(refused: Refused, on_node: Callable[[str, str], None], port: int) -> None:
    listener = f"import socket, time; s = socket.create_server(('', {port})); time.sleep(600)"
    on_node(
        f'systemd-run --quiet --unit=squatter python3 -c "{listener}"; '
        f"until ss -ltnH | grep -q ':{port} '; do sleep 0.1; done",
        "systemctl stop squatter",
    )
    assert f"port {port} is held by python3 -> stop it, or change the port" in refused()


def test_a_certificate_that_expired_after_the_site_was_applied(
    document: dict[str, Any], refused: Refused, tmp_path: Path
) -> None:
    begin = datetime.now(UTC) - timedelta(days=30)
    pem, key = certificate("harbor.lab", start=begin, days=20)
    document["harbor"]["certificate"] = secret_file(tmp_path, "old.pem", pem)
    document["harbor"]["certificate_key"] = secret_file(tmp_path, "old.key", key)
    assert "the TLS certificate: " in (said := refused(now=begin + timedelta(days=1)))
    assert "expired" in said


def test_an_installer_with_another_checksum(document: dict[str, Any], refused: Refused) -> None:
    document["harbor"]["sha256"] = "ab" * 32
    said = refused()
    assert "has the checksum" in said
    assert f"not {'ab' * 32}" in said


def test_an_installer_that_cannot_be_fetched(document: dict[str, Any], refused: Refused) -> None:
    document["harbor"]["installer"] = "https://127.0.0.1:9/harbor-offline-installer.tgz"
    assert f"{NODE}: https://127.0.0.1:9/harbor-offline-installer.tgz cannot be fetched" in refused()


def test_a_wrong_oss_key(document: dict[str, Any], refused: Refused, tmp_path: Path) -> None:
    document["oss"]["access_key_secret"] = secret_file(tmp_path, "oss", "not-the-secret-of-this-key\n")
    said = refused()
    assert "OSS: " in said
    assert "not-the-secret" not in said


def test_a_bucket_that_does_not_exist(document: dict[str, Any], refused: Refused) -> None:
    document["oss"]["bucket"] = "no-such-bucket"
    assert "no-such-bucket" in refused()


def test_a_wrong_redis_password(document: dict[str, Any], refused: Refused, tmp_path: Path) -> None:
    document["redis"]["password"] = secret_file(tmp_path, "redis", "NotTheRedisPassword1\n")
    said = refused()
    assert "WRONGPASS" in said
    assert "NotTheRedisPassword1" not in said


def test_a_postgresql_major_that_no_repository_has(document: dict[str, Any], refused: Refused) -> None:
    document["postgres"]["major"] = 13
    said = refused()
    assert (
        "postgresql-13 is in no package repository of this machine, nor in the PostgreSQL repository" in said
    )
    assert "set postgres.major to one that is" in said


def test_a_database_of_somebody_else(refused: Refused, on_node: Callable[[str, str], None]) -> None:
    on_node(
        "mkdir -p /data/pgsql/data/global; touch /data/pgsql/data/global/pg_control",
        "rm -r /data/pgsql/data",
    )
    assert "/data/pgsql/data holds the database unreadable, which this site did not create" in refused()


def test_an_operation_that_is_open(refused: Refused, on_node: Callable[[str, str], None]) -> None:
    record = '{"kind": "failover", "op_id": "failover-1", "phase": "promoting"}'
    on_node(
        f"mkdir -p -m 700 /var/lib/harbor-ha; echo '{record}' > /var/lib/harbor-ha/operation.json",
        "rm -r /var/lib/harbor-ha",
    )
    assert "failover failover-1 is open (promoting) -> run it again first" in refused()


def test_a_daemon_json_that_cannot_be_merged(refused: Refused, on_node: Callable[[str, str], None]) -> None:
    on_node("mkdir -p /etc/docker; echo '{broken' > /etc/docker/daemon.json", "rm -r /etc/docker")
    assert "/etc/docker/daemon.json: It is not valid JSON" in refused()


def test_everything_that_is_wrong_is_said_at_once(
    document: dict[str, Any], refused: Refused, on_node: Callable[[str, str], None]
) -> None:
    on_node("mkdir -p /data/pgsql/data; touch /data/pgsql/data/file", "rm -r /data/pgsql/data")
    document["harbor"]["sha256"] = "ab" * 32
    document["oss"]["bucket"] = "no-such-bucket"
    said = refused()
    for text in ("which this site did not create", "has the checksum", "no-such-bucket"):
        assert text in said


def test_what_a_killed_run_left_running_is_waited_for(
    lab_site: LabSite, document: dict[str, Any], tmp_path: Path
) -> None:
    """A flow that is killed leaves its command running on the node; to begin beside it would be two at once."""
    document["harbor"]["sha256"] = "ab" * 32  # so that this run changes nothing
    lab_site.shell(NODE, "systemd-run --quiet -E HARBOR_HA=earlier timeout --kill-after=5 600 sleep 6")
    begun = time.monotonic()
    assert "has the checksum" in lab_site.variant(document, tmp_path).refusal
    assert time.monotonic() - begun > 5
    assert not lab_site.holds(NODE, "pgrep -x sleep")
