"""docker-compose.yml: which containers, under which names, with which files mounted."""

from typing import Any

import yaml

from .model import HarborConfig

Service = dict[str, Any]
NOTARY_PORT = 4443


def _bind(source: str, target: str) -> Service:
    return {"type": "bind", "source": source, "target": target}


def _service(name: str, image: str, version: str, container: str, **more: Any) -> Service:
    return {
        "image": f"goharbor/{image}:{version}",
        "container_name": container,
        "restart": "always",
        "networks": ["harbor"],
        "depends_on": ["log"],
        "logging": {"driver": "syslog", "options": {"syslog-address": "tcp://localhost:1514", "tag": name}},
        **more,
    }


def _log(config: HarborConfig, version: str) -> Service:
    return {
        "image": f"goharbor/harbor-log:{version}",
        "container_name": "harbor-log",
        "restart": "always",
        "volumes": [f"{config.log_location}/:/var/log/docker/:z"],
        "ports": ["127.0.0.1:1514:10514"],
        "networks": ["harbor"],
    }


def _registry(config: HarborConfig, version: str) -> dict[str, Service]:
    volumes = [
        f"{config.data_volume}/registry:/storage:z",
        "./common/config/registry/:/etc/registry/:z",
        _bind(f"{config.data_volume}/secret/registry/root.crt", "/etc/registry/root.crt"),
    ]
    control = [*volumes[:2], _bind("./common/config/registryctl/config.yml", "/etc/registryctl/config.yml")]
    env = ["./common/config/registryctl/env"]
    return {
        "registry": _service("registry", "registry-photon", version, "registry", volumes=volumes),
        "registryctl": _service(
            "registryctl", "harbor-registryctl", version, "registryctl", volumes=control, env_file=env
        ),
    }


def _core(config: HarborConfig, version: str) -> Service:
    data = config.data_volume
    stores = ["redis"] if not config.external_redis else []
    stores += ["postgresql"] if not config.database.external else []
    return _service(
        "core",
        "harbor-core",
        version,
        "harbor-core",
        env_file=["./common/config/core/env"],
        volumes=[
            f"{data}/ca_download/:/etc/core/ca/:z",
            f"{data}/:/data/:z",
            "./common/config/core/certificates/:/etc/core/certificates/:z",
            _bind("./common/config/core/app.conf", "/etc/core/app.conf"),
            _bind(f"{data}/secret/core/private_key.pem", "/etc/core/private_key.pem"),
            _bind(f"{data}/secret/keys/secretkey", "/etc/core/key"),
        ],
        depends_on=["log", "registry", *stores],
    )


def _jobservice(config: HarborConfig, version: str) -> Service:
    return _service(
        "jobservice",
        "harbor-jobservice",
        version,
        "harbor-jobservice",
        env_file=["./common/config/jobservice/env"],
        volumes=[
            f"{config.data_volume}/job_logs:/var/log/jobs:z",
            _bind("./common/config/jobservice/config.yml", "/etc/jobservice/config.yml"),
        ],
        depends_on=["core"],
    )


def _proxy(config: HarborConfig, version: str) -> Service:
    volumes: list[Any] = ["./common/config/nginx:/etc/nginx:z"]
    ports = [f"{config.http_port}:8080"]
    if config.protocol == "https":
        volumes.append(f"{config.data_volume}/secret/cert:/etc/cert:z")
        ports.append(f"{config.https_port}:8443")
        if "notary" in config.components:
            ports.append(f"{NOTARY_PORT}:{NOTARY_PORT}")
    return _service(
        "proxy",
        "nginx-photon",
        version,
        "nginx",
        volumes=volumes,
        ports=ports,
        depends_on=["registry", "core", "portal", "log", *(["notary-server"] if config.notary else [])],
    )


def _stores(config: HarborConfig, version: str) -> dict[str, Service]:
    """The bundled PostgreSQL and Redis, where harbor.yml names no external ones."""
    found = {}
    if not config.database.external:
        found["postgresql"] = _service(
            "postgresql",
            "harbor-db",
            version,
            "harbor-db",
            volumes=[f"{config.data_volume}/database:/var/lib/postgresql/data:z"],
            env_file=["./common/config/db/env"],
            shm_size="1gb",
        )
    if not config.external_redis:
        volumes = [f"{config.data_volume}/redis:/var/lib/redis"]
        found["redis"] = _service("redis", "redis-photon", version, "redis", volumes=volumes)
    return found


def _extras(config: HarborConfig, version: str) -> dict[str, Service]:
    found = {}
    if config.with_trivy:
        volumes = [
            f"{config.data_volume}/trivy-adapter/{name}:/home/scanner/{name}" for name in ("trivy", "reports")
        ]
        found["trivy-adapter"] = _service(
            "trivy-adapter",
            "trivy-adapter-photon",
            version,
            "trivy-adapter",
            volumes=volumes,
            env_file=["./common/config/trivy-adapter/env"],
        )
    if config.metric:
        found["exporter"] = _service(
            "exporter",
            "harbor-exporter",
            version,
            "harbor-exporter",
            env_file=["./common/config/exporter/env"],
            ports=[f"{config.metric.port}:8080"],
            depends_on=["core"],
        )
    return found


def _notary(config: HarborConfig, version: str) -> dict[str, Service]:
    bundled = [] if config.database.external else ["postgresql"]
    found = {}
    for part, needs in (("signer", bundled), ("server", [*bundled, "notary-signer"])):
        name = f"notary-{part}"
        found[name] = _service(
            name,
            f"{name}-photon",
            version,
            name,
            volumes=["./common/config/notary:/etc/notary:z"],
            env_file=[f"./common/config/notary/{part}_env"],
            depends_on=["log", *needs],
        )
    return found


def _chartmuseum(config: HarborConfig, version: str) -> dict[str, Service]:
    return {
        "chartmuseum": _service(
            "chartmuseum",
            "chartmuseum-photon",
            version,
            "chartmuseum",
            volumes=[f"{config.data_volume}/chart_storage:/chart_storage:z"],
            env_file=["./common/config/chartserver/env"],
        )
    }


def compose(config: HarborConfig, version: str) -> str:
    """The file's text. `version` is the tag of the images, e.g. v2.13.2."""
    portal = _service(
        "portal",
        "harbor-portal",
        version,
        "harbor-portal",
        volumes=[_bind("./common/config/portal/nginx.conf", "/etc/nginx/nginx.conf")],
    )
    services = {
        "log": _log(config, version),
        **_registry(config, version),
        **_stores(config, version),
        "core": _core(config, version),
        "portal": portal,
        "jobservice": _jobservice(config, version),
        "proxy": _proxy(config, version),
        **_extras(config, version),
        **(_notary(config, version) if "notary" in config.components else {}),
        **(_chartmuseum(config, version) if "chartmuseum" in config.components else {}),
    }
    document = {"services": services, "networks": {"harbor": {"external": False}}}
    head = "version: '2.3'\n" if config.known.compose_version else ""
    return head + yaml.safe_dump(document, sort_keys=False)
