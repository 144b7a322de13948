"""Harbor's images: which program each of them runs, over the same two or three layers."""

import tarfile
from pathlib import Path

from . import archive
from .app.habits import habits
from .archive import Image, Layer
from .rootfs import Layers

HERE = Path(__file__).parent
LIBRARY = "usr/lib/miniharbor"
SCRIPTS = ("healthcheck", "harbor-db")
PATHS = "/usr/lib/miniharbor/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def app_layer(target: Path, version: str) -> Layer:
    """The layer with our own programs, the portal's page and the version."""
    with tarfile.open(target, "w") as tar:
        for path in sorted((HERE / "app").rglob("*")):
            if path.is_file() and path.suffix in (".py", ".sql"):
                archive.add_bytes(
                    tar, f"{LIBRARY}/miniharbor/{path.relative_to(HERE / 'app')}", path.read_bytes()
                )
        for name in SCRIPTS:
            archive.add_bytes(tar, f"{LIBRARY}/bin/{name}", (HERE / "bin" / name).read_bytes(), 0o755)
        page = (HERE / "bin" / "portal.html").read_bytes()
        archive.add_bytes(tar, "usr/share/miniharbor/portal/index.html", page)
        archive.add_bytes(tar, "harbor/VERSION", version.encode())
        archive.add_bytes(tar, "harbor/UIVERSION", f"v{version}".encode())
    return Layer("app", target)


def images(layers: Layers, app: Layer, version: str) -> list[Image]:
    """All images of one Harbor version, tagged as Harbor's own."""
    common = (Layer("base", layers.base), app)
    database = (Layer("base", layers.base), Layer("postgres", layers.postgres), app)
    env = {"PATH": PATHS, "PYTHONPATH": f"/{LIBRARY}", "PYTHONUNBUFFERED": "1", "LANG": "C.UTF-8"}

    # Programs started by `docker exec` find the server by themselves.
    database_env = {**env, "PATH": f"/usr/lib/postgresql/current:{PATHS}", "PGHOST": "/tmp"}

    def image(name: str, *command: str, user: str = "10000:10000", health: str = "") -> Image:
        check = ("healthcheck", *health.split()) if health else ()
        tag = f"goharbor/{name}:v{version}"
        return Image(tag, common, command, user=user, env=env, health=check)

    def program(module: str) -> tuple[str, ...]:
        return ("python3", "-m", f"miniharbor.{module}")

    nginx = ("nginx", "-c", "/etc/nginx/nginx.conf", "-g", "daemon off;")
    redis = ("redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/var/lib/redis")
    removed_since = {
        "notary": [
            image("notary-server-photon", *program("notary"), "server"),
            image("notary-signer-photon", *program("notary"), "signer"),
        ],
        "chartmuseum": [image("chartmuseum-photon", *program("chartmuseum"), health="9999 /health")],
    }
    old = [made for part in habits(version).components for made in removed_since.get(part, [])]
    return [
        *old,
        image("harbor-core", *program("core"), health="8080 /api/v2.0/ping"),
        image("harbor-jobservice", *program("jobservice"), health="8080 /api/v1/stats"),
        image("harbor-registryctl", *program("registryctl"), health="8080 /api/health"),
        image("harbor-exporter", *program("exporter")),
        image("trivy-adapter-photon", *program("trivy")),
        image("registry-photon", "docker-registry", "serve", "/etc/registry/config.yml", health="5000 /"),
        image("harbor-portal", *nginx, health="8080 /"),
        image("nginx-photon", *nginx, health="8080 /"),
        image("redis-photon", *redis, user="999:999"),
        image("harbor-log", *program("logserver"), user="0:0"),
        Image(
            f"goharbor/prepare:v{version}",
            common,
            program("prepare.main"),
            env=env,
            entrypoint=True,
        ),
        Image(
            f"goharbor/harbor-db:v{version}",
            database,
            ("harbor-db",),
            user="999:999",
            env=database_env,
            # At SIGTERM PostgreSQL waits for its clients to leave, and core never leaves by itself.
            stop_signal="SIGINT",
        ),
    ]
