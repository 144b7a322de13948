"""`apply` by root: it reads with root's rights, and the services' user saves what it has read."""

import io
import json
import os
import stat
from pathlib import Path

import pytest

from blocks.problems import SiteFileInvalid
from blocks.site_file import read_site_file
from blocks.store import read_copy, site_as_data
from deployments import cli, exits
from deployments.orchestrator import handover
from tests.unit.site_on_disk import NOW, correct_site, fresh_certificate

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(os.geteuid() != 0, reason="it is what root does"),
]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the command in the path sets, with a user that can run this Python: root again."""
    (tmp_path / "home").mkdir()
    (tmp_path / "environment").write_text('PREFECT_API_URL="x"\nHARBOR_HA_SITES=""\n')
    (tmp_path / "path").mkdir()
    systemctl = tmp_path / "path" / "systemctl"
    systemctl.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/systemctl\n')
    systemctl.chmod(0o755)
    for name, value in (
        ("HARBOR_HA_USER", "root"),
        ("HARBOR_HA_HOME", str(tmp_path / "home")),
        ("HARBOR_HA_ENVIRONMENT", str(tmp_path / "environment")),
        ("PATH", f"{tmp_path / 'path'}:{os.environ['PATH']}"),
        ("PYTHONPATH", str(ROOT)),
    ):
        monkeypatch.setenv(name, value)
    return tmp_path


def test_a_site_with_secrets_of_roots_environment_is_saved_and_served(
    services: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """By hand it took four variables and `sudo -u`, which lost `{env: NAME}`, and the keys had to change hands."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    monkeypatch.setenv("OSS_SECRET", "of-roots-environment")
    on_disk = correct_site(services)
    on_disk.data["harbor"] |= fresh_certificate()
    on_disk.data["oss"]["access_key_secret"] = {"env": "OSS_SECRET"}
    file = on_disk.write()
    assert cli.main(["apply", str(file)]) == exits.DONE
    saved = read_copy("example")
    assert saved.oss is not None
    assert saved.oss.access_key_secret.get_secret_value() == "of-roots-environment"
    copy = services / "home" / "sites" / "example.json"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert 'HARBOR_HA_SITES="--site example"' in (services / "environment").read_text()
    assert (services / "systemctl").read_text() == "restart harbor-ha-runner\n"
    told = capfd.readouterr().out
    assert "no runner serves" not in told, "the advice is followed already"

    assert cli.main(["apply", str(file)]) == exits.DONE
    assert (services / "systemctl").read_text() == "restart harbor-ha-runner\n", (
        "a second time nothing is new"
    )


def test_a_second_site_does_not_end_the_flows_of_the_first(services: Path) -> None:
    file = services / "environment"
    file.write_text('HARBOR_HA_SITES="--site main"\n')
    lines = list(handover._serve("other", file))
    assert "not while a flow of main runs" in lines[1]
    assert not (services / "systemctl").exists()


def test_what_is_not_saved_is_not_served(services: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    on_disk = correct_site(services)
    on_disk.data["harbor"] |= fresh_certificate()
    assert cli.main(["apply", str(on_disk.write())]) == exits.NO_PREFECT
    assert 'HARBOR_HA_SITES=""' in (services / "environment").read_text()


def test_an_installer_that_only_root_can_read_is_told_before_anything_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = read_site_file(correct_site(tmp_path).write(), environ={}, now=NOW)
    monkeypatch.setattr(os, "access", lambda *_: False)
    source = io.BytesIO(json.dumps(site_as_data(site)).encode())
    with pytest.raises(SiteFileInvalid, match=r"who runs the flows, cannot read .*harbor\.tgz"):
        handover.handed_on(source)
