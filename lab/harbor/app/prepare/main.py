"""`python3 -m miniharbor.prepare.main prepare [--conf FILE] [--with-trivy …]`, as the prepare image runs it.

The first thing it does is to delete every file under common/config, before it has even read harbor.yml: a
prepare that fails leaves a running node without its configuration.
"""

import argparse
import logging
import os
import shutil
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..habits import habits
from . import render
from .compose import compose
from .model import HarborConfig, Invalid, check_log_level, parse, validate
from .secretfiles import HARBOR_UID, FreshSecrets, keep_alias, keep_secretkey, keep_token_pair

DATABASE_UID = 999
DATA_DIRECTORIES = (
    ("ca_download", HARBOR_UID, 0o755),
    ("database", DATABASE_UID, 0o700),
    ("job_logs", HARBOR_UID, 0o755),
    ("redis", DATABASE_UID, 0o755),
    ("registry", HARBOR_UID, 0o755),
    ("secret", 0, 0o755),
    ("trivy-adapter", HARBOR_UID, 0o755),
    ("trivy-adapter/trivy", HARBOR_UID, 0o755),
    ("trivy-adapter/reports", HARBOR_UID, 0o755),
)
CHART_DIRECTORY = ("chart_storage", HARBOR_UID, 0o755)


@dataclass(frozen=True)
class Paths:
    """Where prepare finds things; inside the image they hang off the root."""

    root: Path

    @property
    def input(self) -> Path:
        return self.root / "input" / "harbor.yml"

    @property
    def config(self) -> Path:
        return self.root / "config"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def compose(self) -> Path:
        return self.root / "compose_location" / "docker-compose.yml"

    @property
    def host(self) -> Path:
        return self.root / "hostfs"


def wipe(directory: Path) -> None:
    """Delete all files under a directory; the directories stay, containers have them mounted."""
    for base, _, names in os.walk(directory):
        for name in names:
            path = Path(base) / name
            print(f"Clearing the configuration file: {path}")
            path.unlink()


def _own(path: Path, uid: int, mode: int) -> None:
    os.chown(path, uid, uid)
    path.chmod(mode)


def prepare_data(data: Path, components: Collection[str] = ()) -> None:
    """The layout of data_volume with its owners; a directory of another owner is changed as a whole tree."""
    charts = (CHART_DIRECTORY,) if "chartmuseum" in components else ()
    for name, uid, mode in (*DATA_DIRECTORIES, *charts):
        path = data / name
        path.mkdir(parents=True, exist_ok=True)
        if path.stat().st_uid != uid:
            for base, directories, files in os.walk(path):
                for entry in (*directories, *files):
                    os.lchown(Path(base) / entry, uid, uid)
        _own(path, uid, mode)


def prepare_secrets(data: Path, components: Collection[str] = ()) -> None:
    """secretkey, the token pair, notary's alias. Raises RuntimeError for a secretkey of another length."""
    secret = data / "secret"
    keep_secretkey(secret / "keys" / "secretkey")
    keep_token_pair(secret / "core" / "private_key.pem", secret / "registry" / "root.crt")
    names = ["keys/secretkey", "core/private_key.pem", "registry/root.crt"]
    if "notary" in components:
        keep_alias(secret / "keys" / "defaultalias")
        names.append("keys/defaultalias")
    for name in names:
        _own(secret / name, HARBOR_UID, 0o600)


def copy_certificates(config: HarborConfig, paths: Paths) -> None:
    """Replace secret/cert by what harbor.yml points to on the host. Raises FileNotFoundError."""
    target = paths.data / "secret" / "cert"
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True)
    _own(target, HARBOR_UID, 0o755)
    for source, name in ((config.cert, "server.crt"), (config.cert_key, "server.key")):
        shutil.copy2(paths.host / source.lstrip("/"), target / name)
        _own(target / name, HARBOR_UID, 0o644 if name.endswith("crt") else 0o600)


def rendered(
    config: HarborConfig, fresh: FreshSecrets, document: dict[str, Any], alias: str = ""
) -> dict[str, str]:
    """All files under common/config by their names there; `alias` is what notary's signer encrypts with."""
    files = {
        "core/env": render.core_env(config, fresh),
        "core/app.conf": "appname = Harbor\nrunmode = prod\nenablegzip = true\n\n[prod]\nhttpport = 8080\n",
        "core/certificates/.keep": "",
        "registry/config.yml": render.registry_config(config),
        "registry/passwd": render.htpasswd(fresh),
        "registryctl/env": render.registryctl_env(fresh),
        "registryctl/config.yml": "protocol: http\nport: 8080\n",
        "jobservice/env": render.jobservice_env(config, fresh),
        "jobservice/config.yml": render.jobservice_config(config),
        "nginx/nginx.conf": render.nginx_conf(config),
        "portal/nginx.conf": render.portal_conf(),
        "log/logrotate.conf": "/var/log/docker/*.log {\n  rotate 50\n  size 200M\n}\n",
        "db/env": render.env_file(
            {"POSTGRES_PASSWORD": (document.get("database") or {}).get("password", "")}
        ),
    }
    if config.metric:
        files["exporter/env"] = render.exporter_env(config)
    if config.with_trivy:
        files["trivy-adapter/env"] = render.trivy_env(config)
    if "chartmuseum" in config.components:
        files["chartserver/env"] = render.chartserver_env(config)
    if config.notary:
        files |= render.notary_files(config, alias)
    return files


def write_config(directory: Path, files: dict[str, str]) -> None:
    """Write the files, readable by Harbor's user alone where they hold secrets."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        private = path.name in ("env", "passwd") or name in ("registry/config.yml", "jobservice/config.yml")
        _own(path, HARBOR_UID, 0o640 if private else 0o644)
        print(f"Generated configuration file: /config/{name}")


def run(paths: Paths, version: str, components: Sequence[str] = ()) -> int:
    """Everything that `prepare` does; the exit status. Missing keys leave as KeyError."""
    wipe(paths.config)
    document = yaml.safe_load(paths.input.read_text())
    config = parse(document, habits(version), components)
    try:
        validate(config, document)
    except Invalid as error:
        print("Error happened in config validation...")
        logging.error("%s", error)
        return 255
    check_log_level(config)
    prepare_data(paths.data, components)
    prepare_secrets(paths.data, components)
    if config.protocol == "https":
        copy_certificates(config, paths)
    alias = paths.data / "secret" / "keys" / "defaultalias"
    name = alias.read_text() if config.notary else ""
    write_config(paths.config, rendered(config, FreshSecrets.new(), document, name))
    paths.compose.write_text(compose(config, version))
    print("Generated configuration file: /compose_location/docker-compose.yml")
    print("Clean up the input dir")
    return 0


def main() -> None:
    """The command line of the prepare image."""
    logging.basicConfig(format="%(levelname)s:%(name)s:%(message)s")
    parser = argparse.ArgumentParser(prog="prepare")
    parser.add_argument("command", choices=["prepare"])
    parser.add_argument("--conf", help="accepted and ignored: the wrapper mounts the file as input")
    version = "v" + Path("/harbor/VERSION").read_text().strip()
    known = habits(version).components
    for name in known:
        parser.add_argument(f"--with-{name}", action="store_true")
    arguments = vars(parser.parse_args())
    print(f"prepare base dir is set to {os.environ.get('HARBOR_BASE_DIR', '/compose_location')}")
    sys.exit(run(Paths(Path("/")), version, [name for name in known if arguments[f"with_{name}"]]))


if __name__ == "__main__":
    main()
