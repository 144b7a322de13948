"""Harbor over HTTPS at a chosen address: trusted by the site's certificate, believed by its body."""

import pickle
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from tasks.harbor import api, web
from tasks.harbor.api import HarborApi, NotHealthy, parsed_health, wait_healthy, wait_serving
from tasks.harbor.oci import Registry, WrongContent, digest_of, make_image, prove
from tasks.harbor.web import Endpoint, HarborRefused, HarborUnreachable
from tasks.hosts.connection import Host
from tests.unit.harbor_site import make_site
from tests.unit.loopback_harbor import HOSTNAME, LoopbackHarbor, serving
from tests.unit.site_on_disk import certificate

KEY_PAIR = certificate(HOSTNAME, days=36500)


@pytest.fixture
def harbor(tmp_path: Path) -> Iterator[LoopbackHarbor]:
    with serving(*KEY_PAIR, tmp_path) as server:
        yield server


@pytest.fixture
def endpoint(harbor: LoopbackHarbor) -> Endpoint:
    return Endpoint("127.0.0.1", harbor.port, HOSTNAME, KEY_PAIR[0], password="Secret12345")


def test_a_node_is_reached_by_its_address_under_the_sites_name(
    harbor: LoopbackHarbor, endpoint: Endpoint
) -> None:
    with HarborApi(endpoint) as harbor_api:
        assert harbor_api.health().healthy
    assert harbor.seen == [("GET", "/api/v2.0/health", f"{HOSTNAME}:{harbor.port}")]


def test_another_certificate_than_the_sites_is_not_trusted(endpoint: Endpoint) -> None:
    other = Endpoint(endpoint.address, endpoint.port, HOSTNAME, certificate(HOSTNAME, days=36500)[0])
    with HarborApi(other) as harbor_api, pytest.raises(HarborUnreachable, match="not the site's"):
        harbor_api.ping()


def test_the_sites_certificate_under_another_name_is_not_trusted(endpoint: Endpoint) -> None:
    other = Endpoint(endpoint.address, endpoint.port, "other.example.com", KEY_PAIR[0])
    with HarborApi(other) as harbor_api, pytest.raises(HarborUnreachable):
        harbor_api.ping()


def test_the_password_is_in_no_representation(endpoint: Endpoint) -> None:
    assert "Secret12345" not in repr(endpoint)


def test_status_200_with_a_sick_database_is_not_healthy() -> None:
    parts = [
        {"name": "core", "status": "healthy"},
        {"name": "database", "status": "unhealthy", "error": "dial tcp: refused"},
    ]
    health = parsed_health({"status": "unhealthy", "components": parts})
    assert not health.healthy
    assert health.unhealthy == {"database": "unhealthy (dial tcp: refused)"}


@pytest.mark.parametrize("body", [{}, {"status": "unknown"}, {"status": None, "components": None}])
def test_a_body_that_says_nothing_is_not_healthy(body: dict[str, object]) -> None:
    assert not parsed_health(body).healthy


def test_a_write_probe_leaves_nothing_behind(harbor: LoopbackHarbor, endpoint: Endpoint) -> None:
    with HarborApi(endpoint) as harbor_api:
        assert harbor_api.probe_write() >= 0
    assert len(harbor.created) == 1
    assert harbor.labels == {}


def test_a_write_probe_fails_where_health_says_healthy(harbor: LoopbackHarbor, endpoint: Endpoint) -> None:
    harbor.read_only = True
    with HarborApi(endpoint) as harbor_api:
        assert harbor_api.health().healthy
        with pytest.raises(HarborRefused, match="read only mode") as caught:
            harbor_api.probe_write()
    assert caught.value.status == 403
    assert pickle.loads(pickle.dumps(caught.value)).status == 403


def test_no_session_cookie_is_sent_back(harbor: LoopbackHarbor, endpoint: Endpoint) -> None:
    with HarborApi(endpoint) as harbor_api:
        harbor_api.health()
        harbor_api.probe_write()
    assert harbor.cookies == []


def test_a_project_is_created_once(endpoint: Endpoint) -> None:
    with HarborApi(endpoint) as harbor_api:
        assert harbor_api.ensure_project("proof")
        assert not harbor_api.ensure_project("proof")


def test_a_harbor_that_stays_unhealthy_is_named_with_its_sick_component(
    harbor: LoopbackHarbor, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harbor.health = {"status": "unhealthy", "components": [{"name": "redis", "status": "unhealthy"}]}
    monkeypatch.setattr(api, "through_node", lambda site, name: endpoint)

    class Node:
        name = "node-a"

    with pytest.raises(NotHealthy, match="redis: unhealthy"):
        wait_healthy(make_site(tmp_path), cast(Host, Node()), timeout=0.5)


@pytest.mark.parametrize("sick", ["core", "database", "redis", "registry", "jobservice"])
def test_a_harbor_serves_when_only_what_no_client_needs_is_sick(
    sick: str, harbor: LoopbackHarbor, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("core", "database", "redis", "registry", "registryctl", "portal", "jobservice")
    parts = [{"name": name, "status": "unhealthy" if name == sick else "healthy"} for name in names]
    harbor.health = {"status": "unhealthy", "components": parts}
    monkeypatch.setattr(api, "through_node", lambda site, name: endpoint)

    class Node:
        name = "node-a"

    if sick == "jobservice":
        assert not wait_serving(make_site(tmp_path), cast(Host, Node()), timeout=5.0).changed
        return
    with pytest.raises(NotHealthy, match=f"not serving.*{sick}: unhealthy"):
        wait_serving(make_site(tmp_path), cast(Host, Node()), timeout=0.5)


def test_a_server_that_accepts_and_says_nothing_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = Endpoint("127.0.0.1", silent.getsockname()[1], HOSTNAME, KEY_PAIR[0])
        with HarborApi(endpoint, timeout=0.3) as harbor_api, pytest.raises(HarborUnreachable):
            harbor_api.ping()


def test_an_answer_that_trickles_is_given_up_in_time(
    endpoint: Endpoint, harbor: LoopbackHarbor, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Trickle:
        def read(self, size: int) -> bytes:
            threading.Event().wait(0.05)
            return b"x"

    with pytest.raises(TimeoutError):
        web._read(Trickle(), web.time.monotonic() + 0.2)  # type: ignore[arg-type]


def test_an_image_is_pushed_and_comes_back_byte_for_byte(harbor: LoopbackHarbor, endpoint: Endpoint) -> None:
    proof = prove(endpoint, {"node-a": endpoint, "balancer": endpoint}, "proof/image", b"content")
    assert proof.digest == make_image(b"content").digest
    assert set(proof.pull_s) == {"node-a", "balancer"}
    hosts = {host for _, _, host in harbor.seen}
    assert hosts == {f"{HOSTNAME}:{harbor.port}"}, "absolute addresses must not lead away from the node"


def test_a_layer_that_rots_on_the_nas_is_found(harbor: LoopbackHarbor, endpoint: Endpoint) -> None:
    image = make_image(b"content")
    harbor.corrupt = digest_of(image.layer)
    with pytest.raises(WrongContent, match="came back as"):
        prove(endpoint, {"node-a": endpoint}, "proof/image", b"content")


def test_an_image_that_is_missing_is_refused_with_its_status(endpoint: Endpoint) -> None:
    with Registry(endpoint) as registry, pytest.raises(HarborRefused) as caught:
        registry.pull("proof/image", "sha256:" + "0" * 64)
    assert caught.value.status == 404


def test_equal_content_is_an_equal_image_and_other_content_shares_nothing() -> None:
    assert make_image(b"one") == make_image(b"one")
    assert not set(make_image(b"one").blobs) & set(make_image(b"two").blobs)


def test_blobs_that_are_there_are_not_sent_again(harbor: LoopbackHarbor, endpoint: Endpoint) -> None:
    with Registry(endpoint) as registry:
        registry.push("proof/image", "latest", make_image(b"content"))
        before = len([call for call in harbor.seen if call[0] == "POST"])
        registry.push("proof/image", "again", make_image(b"content"))
    assert len([call for call in harbor.seen if call[0] == "POST"]) == before
