"""Certificates are judged as the clients judge them."""

from datetime import timedelta

import pytest

from blocks.certificates import covers, flaws, load_chain, names_of, seconds_left
from tests.unit.site_on_disk import NOW, certificate


@pytest.mark.parametrize(
    ("names", "hostname", "expected"),
    [
        (("harbor.example.com",), "harbor.example.com", True),
        (("harbor.example.com",), "HARBOR.example.com", True),
        (("*.example.com",), "harbor.example.com", True),
        (("*.example.com",), "a.harbor.example.com", False),
        (("*.example.com",), "example.com", False),
        (("10.0.0.1",), "10.0.0.1", True),
        (("10.0.0.1",), "10.0.0.2", False),
        (("other.example.com", "harbor.example.com"), "harbor.example.com", True),
    ],
)
def test_a_certificate_covers_its_names_only(names: tuple[str, ...], hostname: str, expected: bool) -> None:
    (server,) = load_chain(certificate(*names)[0])
    assert covers(server, hostname) is expected


def test_the_common_name_does_not_count_and_that_is_said() -> None:
    pem, key = certificate()
    (flaw,) = flaws(pem, key, "harbor.example.com", NOW)
    assert "common name is ignored by Docker" in flaw.what
    assert names_of(load_chain(pem)[0]) == ([], [])


def test_an_intermediate_in_first_place_is_told_from_a_wrong_key() -> None:
    server, key = certificate("harbor.example.com")
    intermediate, _ = certificate("ca.example.com")
    assert flaws(server + intermediate, key, "harbor.example.com", NOW) == []
    wrong_order = flaws(intermediate + server, key, None, NOW)
    assert [flaw.of for flaw in wrong_order] == ["certificate"]
    assert "first place" in wrong_order[0].what


def test_an_expired_intermediate_is_found() -> None:
    server, key = certificate("harbor.example.com")
    old, _ = certificate("ca.example.com", days=10)
    (flaw,) = flaws(server + old, key, "harbor.example.com", NOW)
    assert "certificate 2 of the chain" in flaw.what


def test_a_certificate_of_the_future_is_not_valid_yet() -> None:
    pem, key = certificate("harbor.example.com", start=NOW + timedelta(days=1))
    assert [flaw.what for flaw in flaws(pem, key, None, NOW)] == ["is not valid before 2026-06-02"]


def test_the_last_second_is_counted() -> None:
    (server,) = load_chain(certificate("a.example.com", start=NOW, days=1)[0])
    assert seconds_left(server, NOW) == 86400
    assert seconds_left(server, NOW + timedelta(days=1)) == 0


def test_an_encrypted_key_is_told_from_a_broken_one() -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

    pem, _ = certificate("a.example.com")
    key = ec.generate_private_key(ec.SECP256R1())
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")).decode()
    assert "passphrase" in flaws(pem, locked, None, NOW)[0].what
    assert "not a PEM private key" in flaws(pem, "x", None, NOW)[0].what
