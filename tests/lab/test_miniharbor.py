"""The miniature Harbor has Harbor's habits, the dangerous ones included: that is what it is for.

One bare node gets Docker, PostgreSQL and Harbor; the stories below follow each other on it.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.harbor import build_installer
from lab.site_lab import Lab
from lab.topology import HOSTNAME, STATE
from tasks.harbor.api import HarborApi
from tasks.harbor.oci import Registry, make_image
from tasks.harbor.web import Endpoint, HarborRefused, HarborUnreachable

NODE = "node-c"
HOME = "/opt/harbor"
PASSWORD = "Harbor12345"
PACKAGES = "docker.io docker-compose postgresql"
FORGET = "TRUNCATE artifact, blob CASCADE"
_WHERE = "/data/harbor/registry/docker/registry/v2/blobs/sha256"


class Machine:
    """The node with Harbor on it, as these stories handle it."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.address = lab.node_address(NODE)
        self.certificate = ""

    def sh(self, script: str, *, stdin: str | bytes = b"", timeout: float = 120.0, check: bool = True) -> str:
        """Run a shell script in Harbor's directory."""
        setup = f"set -eu; export TERM=dumb DEBIAN_FRONTEND=noninteractive; mkdir -p {HOME}; cd {HOME}; "
        argv = ["bash", "-c", setup + script]
        return self._lab.exec(NODE, argv, stdin=stdin, timeout=timeout, check=check).stdout

    def status(self, script: str) -> int:
        """Exit status of a shell script in Harbor's directory."""
        argv = ["bash", "-c", f"cd {HOME}; {script}"]
        return self._lab.exec(NODE, argv, timeout=120, check=False).returncode

    @property
    def endpoint(self) -> Endpoint:
        """Harbor over HTTPS."""
        return Endpoint(self.address, 443, HOSTNAME, self.certificate, password=PASSWORD)

    def api(self) -> HarborApi:
        """A fresh connection to the API."""
        return HarborApi(self.endpoint, timeout=20)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> int:
        """Status of one call that `HarborApi` has no name for."""
        with self.api() as api:
            content = json.dumps(body or {}).encode()
            headers = self.endpoint.authorization()
            return api.session.request(method, f"/api/v2.0{path}", content, headers).status

    def push(self, repository: str, content: bytes) -> str:
        """Push a small image; its digest."""
        with Registry(self.endpoint) as registry:
            return registry.push(repository, "v1", make_image(content))

    def pull(self, repository: str, reference: str) -> bytes:
        """Pull an image; its layer."""
        with Registry(self.endpoint) as registry:
            return registry.pull(repository, reference).layer

    def write_settings(self, **changes: Any) -> None:
        """Write harbor.yml: the template's settings with changes; None removes a key."""
        document = yaml.safe_load(self.sh("cat harbor.yml.tmpl"))
        document |= {"hostname": HOSTNAME, "harbor_admin_password": PASSWORD}
        document["https"] = {"port": 443, "certificate": "/etc/harbor.pem", "private_key": "/etc/harbor.key"}
        document["data_volume"] = "/data/harbor"
        self.sh("cat > harbor.yml", stdin=yaml.safe_dump({**document, **changes}))

    def wait_healthy(self, limit: float = 90.0) -> None:
        """Until the body of /health says so."""
        deadline = time.monotonic() + limit
        last = ""
        while time.monotonic() < deadline:
            try:
                with self.api() as api:
                    health = api.health()
                if health.healthy:
                    return
                last = str(health.unhealthy)
            except (HarborUnreachable, HarborRefused) as error:
                last = str(error)
            time.sleep(0.3)
        raise AssertionError(f"not healthy: {last}")

    def external(self) -> dict[str, Any]:
        """Settings that name the node's own PostgreSQL."""
        address = {"host": self.address, "port": 5432, "db_name": "registry", "username": "harbor"}
        return {"external_database": {"harbor": {**address, "password": "word", "ssl_mode": "disable"}}}


@pytest.fixture(scope="module")
def machine(standing_lab: Lab) -> Iterator[Machine]:
    standing_lab.recreate(NODE)
    node = Machine(standing_lab)
    installer = build_installer(STATE / "installer")
    node.sh(f"apt-get -qq update && apt-get -qq -y install --no-install-recommends {PACKAGES}", timeout=600)
    node.sh("tar -xz --strip-components=1", stdin=Path(installer.path).read_bytes(), timeout=120)
    node.sh(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout /etc/harbor.key -out /etc/harbor.pem"
        f" -subj /CN={HOSTNAME} -addext subjectAltName=DNS:{HOSTNAME} 2>&1"
    )
    node.certificate = node.sh("cat /etc/harbor.pem")
    node.write_settings()
    node.sh("./install.sh", timeout=300)
    node.wait_healthy()
    yield node
    standing_lab.recreate(NODE)


@pytest.fixture(scope="module")
def external(machine: Machine) -> Machine:
    """Harbor after the move to a PostgreSQL outside of its containers, as the guide makes it."""
    machine.push("library/moved", b"pushed into the bundled database")
    dump = machine.sh("docker exec harbor-db pg_dump -U postgres --no-owner registry")
    machine.sh(
        'psql() { runuser -u postgres -- psql -q -v ON_ERROR_STOP=1 "$@"; }; cd /;'
        " psql -c \"CREATE ROLE harbor LOGIN PASSWORD 'word'\" -c 'CREATE DATABASE registry OWNER harbor'"
        " -c \"ALTER SYSTEM SET listen_addresses = '*'\";"
        " echo 'host registry harbor 0.0.0.0/0 scram-sha-256' >> /etc/postgresql/*/main/pg_hba.conf;"
        " systemctl restart postgresql; until psql -c 'SELECT 1' >/dev/null; do sleep 0.2; done"
    )
    machine.sh("cd /; runuser -u postgres -- psql -q -v ON_ERROR_STOP=1 -d registry >/dev/null", stdin=dump)
    machine.sh(
        "cd /; for t in $(runuser -u postgres -- psql -Atc"
        " \"SELECT tablename FROM pg_tables WHERE schemaname = 'public'\" registry); do"
        ' runuser -u postgres -- psql -qc "ALTER TABLE $t OWNER TO harbor" registry; done'
    )
    machine.write_settings(**machine.external())
    machine.sh("./prepare && docker-compose up -d --remove-orphans -t 1 2>&1", timeout=200)
    machine.sh("docker-compose restart -t 1 proxy 2>&1")
    machine.wait_healthy()
    return machine


@pytest.fixture
def healthy(external: Machine) -> Machine:
    external.wait_healthy()
    return external


def test_the_bundled_harbor_takes_a_push_and_its_database_can_be_dumped(machine: Machine) -> None:
    digest = machine.push("library/first", b"first")
    assert machine.pull("library/first", "v1") == make_image(b"first").layer
    dump = machine.sh("docker exec harbor-db pg_dump -U postgres registry")
    assert digest in dump
    assert "CREATE EXTENSION" not in dump
    with machine.api() as api:
        assert api.statistics()["total_repo_count"] >= 1


def test_port_80_sends_clients_to_https_with_308(machine: Machine) -> None:
    said = machine.sh("curl -s -o /dev/null -w '%{http_code} %{redirect_url}' http://127.0.0.1/c/x")
    assert said == "308 https://127.0.0.1/c/x"


def test_a_stranger_is_sent_to_the_token_service_under_the_public_name(machine: Machine) -> None:
    headers = machine.sh("curl -ski https://127.0.0.1/v2/")
    assert "401" in headers.splitlines()[0]
    assert f'Bearer realm="https://{HOSTNAME}/service/token",service="harbor-registry"' in headers


def test_what_was_in_the_bundled_database_is_there_after_the_move(external: Machine) -> None:
    assert "harbor-db" not in external.sh("docker ps --format '{{.Names}}'")
    assert external.pull("library/moved", "v1") == make_image(b"pushed into the bundled database").layer


def test_a_prepare_under_a_running_harbor_breaks_pushes_and_no_restart_heals_them(healthy: Machine) -> None:
    healthy.sh("./prepare")
    with pytest.raises(HarborRefused):
        healthy.push("library/after-prepare", b"refused")
    healthy.sh("docker-compose restart -t 1 core 2>&1; docker-compose restart -t 1 proxy 2>&1")
    healthy.wait_healthy()
    with pytest.raises(HarborRefused):
        healthy.push("library/after-prepare", b"refused")
    healthy.sh("docker-compose up -d -t 1 2>&1; docker-compose restart -t 1 proxy 2>&1")
    healthy.wait_healthy()
    healthy.push("library/after-prepare", b"accepted")


def test_a_restart_does_not_read_the_new_database_address_but_up_does(healthy: Machine) -> None:
    healthy.sh("sed -i 's/^POSTGRESQL_HOST=.*/POSTGRESQL_HOST=192.0.2.1/' common/config/core/env")
    healthy.sh("docker-compose restart -t 1 core 2>&1; docker-compose restart -t 1 proxy 2>&1")
    healthy.wait_healthy()
    with healthy.api() as api:
        assert api.probe_write() > 0
    healthy.sh("docker-compose up -d -t 1 --no-deps core 2>&1; docker-compose restart -t 1 proxy 2>&1")
    assert "POSTGRESQL_HOST=192.0.2.1" in healthy.sh("docker inspect harbor-core")
    with healthy.api() as api, pytest.raises(HarborRefused):
        api.health()
    healthy.sh(f"sed -i 's/^POSTGRESQL_HOST=.*/POSTGRESQL_HOST={healthy.address}/' common/config/core/env")
    healthy.sh("docker-compose up -d -t 1 --no-deps core 2>&1; docker-compose restart -t 1 proxy 2>&1")
    healthy.wait_healthy()


def test_core_starts_on_a_read_only_standby_says_healthy_and_cannot_write(healthy: Machine) -> None:
    digest = healthy.push("library/standby", b"before the role changed")
    healthy.sh("touch $(echo /var/lib/postgresql/*/main)/standby.signal; systemctl restart postgresql")
    healthy.sh("docker-compose restart -t 1 core jobservice 2>&1; docker-compose restart -t 1 proxy 2>&1")
    healthy.wait_healthy()
    with healthy.api() as api, pytest.raises(HarborRefused) as refusal:
        api.probe_write()
    assert refusal.value.status == 500
    assert "read-only transaction" in str(refusal.value)
    assert healthy.pull("library/standby", digest)
    with pytest.raises(HarborRefused):
        healthy.push("library/standby", b"while it is a standby")
    healthy.sh("cd /; runuser -u postgres -- psql -qAtc 'SELECT pg_promote(true, 30)'")
    with healthy.api() as api:
        assert api.probe_write() > 0


def test_core_survives_a_restart_of_its_database(healthy: Machine) -> None:
    healthy.sh("systemctl restart postgresql")
    with healthy.api() as api:
        assert api.probe_write() > 0


def test_read_only_mode_refuses_writes_and_pushes_and_can_be_left(healthy: Machine) -> None:
    with healthy.api() as api:
        api.set_read_only(True)
        try:
            with pytest.raises(HarborRefused, match="read only mode") as refusal:
                api.probe_write()
            assert refusal.value.status == 403
            with pytest.raises(HarborRefused):
                healthy.push("library/read-only", b"refused")
            assert api.systeminfo()["read_only"] is True
        finally:
            api.set_read_only(False)
        assert api.probe_write() > 0


def test_another_secretkey_is_found_out_by_pinging_a_registry(healthy: Machine) -> None:
    credential = {"type": "basic", "access_key": "robot", "access_secret": "word"}
    body = {"name": "elsewhere", "url": "https://elsewhere", "type": "harbor", "credential": credential}
    assert healthy.call("POST", "/registries", body) == 201
    stored = healthy.sh(
        "cd /; runuser -u postgres -- psql -Atc 'SELECT id, access_secret FROM registry' registry"
    )
    number, _, secret = stored.strip().partition("|")
    assert secret.startswith("<enc-v1>")
    assert healthy.call("POST", "/registries/ping", {"id": int(number)}) == 200
    key = "/data/harbor/secret/keys/secretkey"
    restart = "docker-compose restart -t 1 core 2>&1; docker-compose restart -t 1 proxy 2>&1"
    healthy.sh(f"cp -p {key} /root/key; printf 0123456789abcdef > {key}; {restart}")
    healthy.wait_healthy()
    assert healthy.call("POST", "/registries/ping", {"id": int(number)}) == 400
    healthy.sh(f"cat /root/key > {key}; {restart}")
    healthy.wait_healthy()
    assert healthy.call("POST", "/registries/ping", {"id": int(number)}) == 200


def test_a_delete_takes_rows_and_only_garbage_collection_takes_blobs(healthy: Machine) -> None:
    image = make_image(b"to be deleted")
    healthy.push("library/deleted", b"to be deleted")
    layer = next(digest for digest, data in image.blobs.items() if data == image.layer).removeprefix(
        "sha256:"
    )
    path = f"{_WHERE}/{layer[:2]}/{layer}/data"
    with healthy.api() as api:
        assert api.delete_repository("library", "deleted")
    assert healthy.status(f"test -f {path}") == 0
    asked = {"schedule": {"type": "Manual"}, "parameters": {"time_window": 0}}
    assert healthy.call("POST", "/system/gc/schedule", asked) == 201
    _until(lambda: healthy.status(f"test -f {path}") == 1)
    _until(lambda: '"job_status":"Success"' in healthy.sh(_gc_history()))
    assert healthy.pull("library/moved", "v1")


def test_a_blob_that_the_database_does_not_know_is_sent_again_although_its_storage_holds_it(
    healthy: Machine,
) -> None:
    """After the second adoption of one Harbor the storage was ahead of the database, and no push got through."""
    image = make_image(b"older database")
    with Registry(healthy.endpoint) as registry:
        registry.push("library/ahead", "v1", image)
        healthy.sh("cd /; runuser -u postgres -- psql -q -v ON_ERROR_STOP=1 registry", stdin=FORGET)
        registry.push("library/ahead", "v1", image)
        assert registry.pull("library/ahead", "v1") == image


def _gc_history() -> str:
    return f"curl -sk -u admin:{PASSWORD} 'https://127.0.0.1/api/v2.0/system/gc?page_size=1'"


def _until(condition: Callable[[], bool], limit: float = 30.0) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.2)


def test_core_does_not_hear_sigterm_so_the_stop_time_out_is_waited_out(healthy: Machine) -> None:
    started = time.monotonic()
    healthy.sh("docker-compose stop -t 3 core 2>&1")
    assert time.monotonic() - started >= 3
    started = time.monotonic()
    healthy.sh("docker stop -t 10 harbor-jobservice")
    assert time.monotonic() - started < 8
    healthy.sh("docker-compose up -d 2>&1; docker-compose restart -t 1 proxy 2>&1")
    healthy.wait_healthy()


def test_a_prepare_that_fails_leaves_a_running_node_without_its_configuration(healthy: Machine) -> None:
    healthy.write_settings(**healthy.external(), hostname="127.0.0.1")
    assert healthy.status("./prepare") == 255
    assert healthy.status("test -e common/config/core/env") == 1
    assert healthy.status("test -e input/harbor.yml") == 0
    assert healthy.status("docker-compose config -q 2>/dev/null") != 0
    healthy.write_settings(**healthy.external())
    healthy.sh("./prepare && docker-compose up -d -t 1 2>&1; docker-compose restart -t 1 proxy 2>&1")
    healthy.wait_healthy()
    assert healthy.status("test -e input") == 1
