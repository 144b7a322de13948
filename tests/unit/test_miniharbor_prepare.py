"""The miniature `prepare`: Harbor's contract with whoever edits harbor.yml and runs it."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.harbor import installer
from lab.harbor.app.habits import habits
from lab.harbor.app.prepare import main as prepare
from lab.harbor.app.prepare.model import Invalid, parse, validate
from lab.harbor.app.prepare.secretfiles import keep_secretkey, keep_token_pair

VERSION = "v2.13.2"
KNOWN = habits(VERSION)
EXTERNAL: dict[str, Any] = {
    "external_database": {
        "harbor": {
            "host": "10.9.8.7",
            "port": 5432,
            "db_name": "registry",
            "username": "harbor",
            "password": "word",
            "ssl_mode": "disable",
        }
    },
    "external_redis": {"host": "10.9.8.6:6379", "password": "redisword", "registry_db_index": 3},
}


@pytest.fixture(autouse=True)
def anybody_may_own_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepare gives files to Harbor's users, which only root may do."""
    monkeypatch.setattr(os, "chown", lambda *_: None)
    monkeypatch.setattr(os, "lchown", lambda *_: None)


@pytest.fixture
def template() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(installer.bundled("harbor.yml.tmpl", "2.13.2"))
    document["hostname"] = "harbor.test"
    del document["https"]
    return document


Run = Callable[[dict[str, Any]], int]


@pytest.fixture
def paths(tmp_path: Path) -> prepare.Paths:
    for name in ("input", "config", "data", "compose_location", "hostfs"):
        (tmp_path / name).mkdir()
    return prepare.Paths(tmp_path)


@pytest.fixture
def run(paths: prepare.Paths) -> Run:
    def once(document: dict[str, Any]) -> int:
        paths.input.write_text(yaml.safe_dump(document))
        return prepare.run(paths, VERSION)

    return once


def _env(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in path.read_text().splitlines())


def test_the_template_as_shipped_has_harbors_keys_and_is_refused_for_its_hostname() -> None:
    document = yaml.safe_load(installer.bundled("harbor.yml.tmpl", "2.13.2"))
    assert document["_version"] == "2.13.0"
    assert {"hostname", "http", "https", "database", "data_volume", "trivy", "jobservice", "log"} <= set(
        document
    )
    assert "external_database" not in document
    with pytest.raises(Invalid, match="Please specify hostname"):
        validate(parse(document, KNOWN), document)


@pytest.mark.parametrize("block", ["external_database", "external_redis", "metric", "storage_service"])
def test_a_commented_block_of_the_template_is_valid_yaml_without_its_marks(block: str) -> None:
    lines = installer.bundled("harbor.yml.tmpl", "2.13.2").decode().splitlines()
    start = lines.index(f"# {block}:")
    end = next(n for n in range(start, len(lines)) if not lines[n].startswith("#"))
    text = "\n".join(line.removeprefix("# ") for line in lines[start:end])
    assert block in yaml.safe_load(text)


def test_only_cores_environment_names_the_database(
    run: Run, paths: prepare.Paths, template: dict[str, Any]
) -> None:
    assert run({**template, **EXTERNAL}) == 0
    files = [path for path in paths.config.rglob("*") if path.is_file()]
    naming = [str(path.relative_to(paths.config)) for path in files if "10.9.8.7" in path.read_text()]
    assert naming == ["core/env"]
    assert "10.9.8.7" not in paths.compose.read_text()


def test_with_metrics_the_exporters_environment_names_it_too(
    run: Run, paths: prepare.Paths, template: dict[str, Any]
) -> None:
    metric = {"metric": {"enabled": True, "port": 9090, "path": "/metrics"}}
    assert run({**template, **EXTERNAL, **metric}) == 0
    assert _env(paths.config / "exporter/env")["HARBOR_DATABASE_HOST"] == "10.9.8.7"
    assert "harbor-exporter" in paths.compose.read_text()


def test_every_run_draws_new_secrets(run: Run, paths: prepare.Paths, template: dict[str, Any]) -> None:
    run({**template, **EXTERNAL})
    first, passwd = _env(paths.config / "core/env"), (paths.config / "registry/passwd").read_text()
    compose = paths.compose.read_text()
    run({**template, **EXTERNAL})
    second = _env(paths.config / "core/env")
    changed = {key for key in first if first[key] != second[key]} - {"NO_PROXY"}
    assert changed == {
        "CORE_SECRET",
        "JOBSERVICE_SECRET",
        "REGISTRY_CREDENTIAL_PASSWORD",
        "CSRF_KEY",
        "ROBOT_SCANNER_NAME_PREFIX",
    }
    assert (paths.config / "registry/passwd").read_text() != passwd
    assert paths.compose.read_text() == compose


def test_a_refused_harbor_yml_has_already_cost_the_configuration(
    run: Run, paths: prepare.Paths, template: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run({**template, **EXTERNAL})
    assert run({**template, "hostname": "127.0.0.1"}) == 255
    assert not [path for path in paths.config.rglob("*") if path.is_file()]
    assert "Error happened in config validation..." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hostname": "127.0.0.1"}, "127.0.0.1 can not be the hostname"),
        ({"https": {"port": 443}}, "The protocol is https but attribute ssl_cert is not set"),
        ({"https": {"certificate": "/c.pem"}}, "The protocol is https but attribute ssl_cert_key is not set"),
        ({"storage_service": {"floppy": {"a": 1}}}, "storage driver floppy is not supported"),
        ({"storage_service": {"oss": None}}, "no provider configurations are provided for provider oss"),
    ],
)
def test_validation_says_what_harbor_says(
    template: dict[str, Any], change: dict[str, Any], said: str
) -> None:
    document = {**template, **change}
    with pytest.raises(Invalid, match=said):
        validate(parse(document, KNOWN), document)


def test_missing_keys_are_raw_tracebacks(template: dict[str, Any]) -> None:
    without_loggers = {**template, "jobservice": {"max_job_workers": 10}}
    with pytest.raises(KeyError, match="job_loggers"):
        parse(without_loggers, KNOWN)
    del template["database"]
    with pytest.raises(KeyError, match="harbor_db_password"):
        parse(template, KNOWN)
    with pytest.raises(KeyError, match="disable"):
        parse({**template, **EXTERNAL, "storage_service": {"redirect": {"disabled": True}}}, KNOWN)


def test_a_database_without_a_host_is_let_through(
    run: Run, paths: prepare.Paths, template: dict[str, Any]
) -> None:
    external: dict[str, Any] = {"harbor": {**EXTERNAL["external_database"]["harbor"], "host": None}}
    assert run({**template, "external_database": external}) == 0
    assert _env(paths.config / "core/env")["POSTGRESQL_HOST"] == "None"


def test_a_secretkey_is_kept_and_one_of_another_length_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "secretkey"
    keep_secretkey(path)
    drawn = path.read_text()
    keep_secretkey(path)
    assert path.read_text() == drawn
    assert len(drawn) == 16
    path.write_text("0123456789abcdef\n")
    with pytest.raises(RuntimeError, match="secret key's length has to be 16 chars"):
        keep_secretkey(path)


def test_a_lost_certificate_costs_the_token_key_as_well(tmp_path: Path) -> None:
    key, certificate = tmp_path / "core/private_key.pem", tmp_path / "registry/root.crt"
    assert keep_token_pair(key, certificate, bits=1024)
    first = key.read_bytes()
    assert not keep_token_pair(key, certificate, bits=1024)
    certificate.unlink()
    assert keep_token_pair(key, certificate, bits=1024)
    assert key.read_bytes() != first


def test_the_bundled_stores_run_only_when_no_external_ones_are_named(
    run: Run, paths: prepare.Paths, template: dict[str, Any]
) -> None:
    run(template)
    bundled = yaml.safe_load(paths.compose.read_text())
    run({**template, **EXTERNAL})
    external = yaml.safe_load(paths.compose.read_text())
    assert set(bundled["services"]) - set(external["services"]) == {"postgresql", "redis"}
    assert bundled["services"]["postgresql"]["container_name"] == "harbor-db"
    assert external["services"]["proxy"]["ports"] == ["80:8080"]


def test_certificates_are_copied_from_the_host_and_published_on_443(
    run: Run, paths: prepare.Paths, template: dict[str, Any]
) -> None:
    (paths.host / "etc").mkdir()
    (paths.host / "etc/c.pem").write_text("certificate")
    (paths.host / "etc/k.pem").write_text("key")
    https = {"https": {"port": 443, "certificate": "/etc/c.pem", "private_key": "/etc/k.pem"}}
    assert run({**template, **https}) == 0
    assert (paths.data / "secret/cert/server.crt").read_text() == "certificate"
    services = yaml.safe_load(paths.compose.read_text())["services"]
    assert services["proxy"]["ports"] == ["80:8080", "443:8443"]
    assert "return 308 https://$host$request_uri" in (paths.config / "nginx/nginx.conf").read_text()


def test_redis_passwords_and_databases_reach_registry_and_jobservice(
    run: Run, paths: prepare.Paths, template: dict[str, Any]
) -> None:
    run({**template, **EXTERNAL})
    registry = yaml.safe_load((paths.config / "registry/config.yml").read_text())
    assert registry["redis"]["db"] == 3
    assert registry["redis"]["password"] == "redisword"
    jobservice = yaml.safe_load((paths.config / "jobservice/config.yml").read_text())
    url = jobservice["worker_pool"]["redis_pool"]["redis_url"]
    assert url == "redis://:redisword@10.9.8.6:6379/2?idle_timeout_seconds=30"


@pytest.mark.parametrize(
    ("line", "taken"),
    [("/data", "/data"), ("'/data'", "'/data'"), ("/data # nfs", "nfs")],
)
def test_the_wrapper_reads_data_volume_with_harbors_carelessness(
    tmp_path: Path, line: str, taken: str
) -> None:
    (tmp_path / "prepare").write_bytes(installer.bundled("prepare", "2.13.2"))
    (tmp_path / "harbor.yml").write_text(f"hostname: x\ndata_volume: {line}\n")
    (tmp_path / "docker").write_text('#!/bin/sh\necho "$@" >> "$(dirname "$0")/seen"\n')
    (tmp_path / "docker").chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["bash", tmp_path / "prepare", "--with-trivy"], env=env, check=True, timeout=20)
    seen = (tmp_path / "seen").read_text()
    assert f"-v {taken}:/data -v" in seen
    assert f"goharbor/prepare:{VERSION} prepare --with-trivy" in seen


def test_install_refuses_an_unknown_flag_with_its_usage(tmp_path: Path) -> None:
    for name in ("install.sh", "common.sh"):
        (tmp_path / name).write_bytes(installer.bundled(name, "2.13.2"))
    command = ["bash", tmp_path / "install.sh", "--with-notary"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == 1
    assert "--with-trivy" in result.stdout
