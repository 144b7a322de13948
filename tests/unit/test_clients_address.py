"""The address that clients are told to fetch their tokens at: computed as prepare does, and followed as they do."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from blocks import HarborSite
from tasks.errors import HarborHaError, Refused
from tasks.harbor.config import render
from tasks.harbor.oci import Registry, make_image
from tasks.harbor.web import Endpoint, clients_address, through_balancer
from tests.unit.harbor_site import make_site
from tests.unit.loopback_harbor import HOSTNAME, LoopbackHarbor, serving


def template() -> str:
    return (Path(__file__).parent / "harbor_templates" / "v2.13.yml").read_text()


def site_of(tmp_path: Path, https_port: int, balancer_port: int) -> HarborSite:
    site = make_site(tmp_path, version="v2.13.2", https_port=https_port)
    return site.model_copy(update={"balancer": site.balancer.model_copy(update={"port": balancer_port})})


def external_url(site: HarborSite, more: str = "") -> object:
    return yaml.safe_load(render(template() + more, site, "10.20.0.11")).get("external_url")


@pytest.mark.parametrize(
    ("https_port", "balancer_port", "written"),
    [
        (443, 443, None),
        (8443, 443, f"https://{HOSTNAME}"),
        (8443, 8443, None),
        (443, 8443, f"https://{HOSTNAME}:8443"),
    ],
)
def test_clients_are_told_the_balancers_port_and_not_the_nodes(
    https_port: int, balancer_port: int, written: str | None, tmp_path: Path
) -> None:
    assert external_url(site_of(tmp_path, https_port, balancer_port)) == written


def test_an_external_url_that_says_the_same_stays(tmp_path: Path) -> None:
    kept = f"https://{HOSTNAME.upper()}:443"
    assert external_url(site_of(tmp_path, 8443, 443), f"external_url: {kept}  # by hand\n") == kept


@pytest.mark.parametrize(
    "old", ["https://old.example.com", f"http://{HOSTNAME}", f"https://{HOSTNAME}:8443", "https://[::1", "12"]
)
def test_another_external_url_is_refused_with_both_addresses(old: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=rf"external_url.*https://{HOSTNAME}\b") as caught:
        external_url(site_of(tmp_path, 443, 443), f"external_url: {old}\n")
    assert old in str(caught.value)


@pytest.fixture
def harbor(tmp_path: Path) -> Iterator[tuple[LoopbackHarbor, Endpoint]]:
    site = make_site(tmp_path)
    key = site.harbor.certificate_key.get_secret_value()
    with serving(site.harbor.certificate, key, tmp_path) as server:
        endpoint = through_balancer(site)
        yield server, dataclasses.replace(endpoint, address="127.0.0.1", port=server.port)


def test_a_push_ends_where_clients_are_sent_to_another_address_for_their_token(
    harbor: tuple[LoopbackHarbor, Endpoint],
) -> None:
    server, endpoint = harbor
    with Registry(endpoint) as registry:
        assert registry.push("library/a", "latest", make_image(b"a"))
    server.realm = "https://old.example.com/service/token"
    with Registry(endpoint) as registry, pytest.raises(HarborHaError, match=r"old\.example\.com"):
        registry.push("library/b", "latest", make_image(b"b"))


@pytest.mark.parametrize(
    "challenge", ['Bearer service="harbor-registry"', "Bearer", 'Bearer realm="https://[::1"']
)
def test_an_odd_challenge_is_an_error_of_ours(
    harbor: tuple[LoopbackHarbor, Endpoint], challenge: str
) -> None:
    server, endpoint = harbor
    server.challenge = challenge
    with Registry(endpoint) as registry, pytest.raises(HarborHaError):
        registry.push("library/a", "latest", make_image(b"a"))


def test_the_clients_address_has_a_port_only_where_it_is_not_the_usual_one(tmp_path: Path) -> None:
    assert clients_address(site_of(tmp_path, 8443, 443)) == f"https://{HOSTNAME}"
    assert clients_address(site_of(tmp_path, 443, 8443)) == f"https://{HOSTNAME}:8443"
