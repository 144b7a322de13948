"""TLS certificates, judged: do they belong to the key, cover the host name, and are they valid now."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtensionOID, NameOID


@dataclass(frozen=True)
class Flaw:
    """What is wrong with a certificate or its key, and what would be right.

    Attributes:
        of: `certificate` or `key`: which of the two is to be replaced.
    """

    of: str
    what: str
    right: str


def load_chain(pem: str) -> list[x509.Certificate]:
    """Given PEM text, return its certificates in order. Raise ValueError if none or a broken one."""
    return x509.load_pem_x509_certificates(pem.encode())


def names_of(certificate: x509.Certificate) -> tuple[list[str], list[str]]:
    """Return the DNS names and the IP addresses a certificate is for.

    The common name does not count: clients written in Go, Docker among them, have ignored it since 2020.
    """
    try:
        found = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    except x509.ExtensionNotFound:
        return [], []
    assert isinstance(found, x509.SubjectAlternativeName)
    return found.get_values_for_type(x509.DNSName), [
        str(ip) for ip in found.get_values_for_type(x509.IPAddress)
    ]


def covers(certificate: x509.Certificate, hostname: str) -> bool:
    """Whether a client that asks for `hostname` (a name or an IP address) accepts the certificate.

    A wildcard stands for exactly one label: `*.x.org` covers `hub.x.org`, not `a.hub.x.org`.
    """
    dns_names, addresses = names_of(certificate)
    try:
        return str(ipaddress.ip_address(hostname)) in addresses
    except ValueError:
        pass
    wanted = hostname.lower().rstrip(".")
    parent = wanted.partition(".")[2]
    return any(name.lower() == wanted or (parent and name.lower() == f"*.{parent}") for name in dns_names)


def seconds_left(certificate: x509.Certificate, now: datetime) -> float:
    """Seconds from `now` (with a time zone) until the certificate expires; negative when it has expired."""
    return (certificate.not_valid_after_utc - now).total_seconds()


def flaws(chain_pem: str, key_pem: str, hostname: str | None, now: datetime) -> list[Flaw]:
    """Given a PEM chain, its PEM key and the host name of the site, return all that is wrong with them.

    Without a host name the names are not judged. `now` has a time zone.
    """
    found: list[Flaw] = []
    chain = _chain_or_none(chain_pem)
    if chain is None:
        found.append(
            Flaw("certificate", "is not a PEM certificate", "the text from `-----BEGIN CERTIFICATE-----` on")
        )
    key = _public_key_or_flaw(key_pem)
    if isinstance(key, Flaw):
        found.append(key)
    if chain is None:
        return found
    if not isinstance(key, Flaw) and not _same_key(chain[0].public_key(), key):
        found.append(_mismatch(chain, key))
    return found + _name_flaws(chain[0], hostname) + _validity_flaws(chain, now)


def _chain_or_none(pem: str) -> list[x509.Certificate] | None:
    try:
        return load_chain(pem)
    except ValueError:
        return None


def _public_key_or_flaw(pem: str) -> PublicKeyTypes | Flaw:
    try:
        return load_pem_private_key(pem.encode(), password=None).public_key()
    except TypeError:
        return Flaw(
            "key", "is encrypted with a passphrase", "a key without passphrase: Harbor starts unattended"
        )
    except Exception:  # cryptography raises ValueError, UnsupportedAlgorithm and others for broken keys
        return Flaw("key", "is not a PEM private key", "the text from `-----BEGIN PRIVATE KEY-----` on")


def _same_key(one: PublicKeyTypes, other: PublicKeyTypes) -> bool:
    return _spki(one) == _spki(other)


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _mismatch(chain: Sequence[x509.Certificate], key: PublicKeyTypes) -> Flaw:
    if any(_same_key(other.public_key(), key) for other in chain[1:]):
        return Flaw(
            "certificate",
            "has the server certificate not in first place",
            "the server certificate first, then the intermediates",
        )
    return Flaw(
        "key", "does not belong to the certificate", "the private key that the certificate was issued for"
    )


def _name_flaws(server: x509.Certificate, hostname: str | None) -> list[Flaw]:
    if hostname is None or covers(server, hostname):
        return []
    dns_names, addresses = names_of(server)
    names = ", ".join([*dns_names, *addresses]) or "no name at all"
    common = server.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not dns_names and not addresses and common:
        names += " (its common name is ignored by Docker)"
    return [
        Flaw("certificate", f"is for {names}", f"a certificate with {hostname} as subject alternative name")
    ]


def _validity_flaws(chain: Sequence[x509.Certificate], now: datetime) -> list[Flaw]:
    found = []
    for position, certificate in enumerate(chain):
        which = "" if position == 0 else f" (certificate {position + 1} of the chain)"
        if seconds_left(certificate, now) <= 0:
            end = certificate.not_valid_after_utc.date()
            found.append(Flaw("certificate", f"expired on {end}{which}", "a certificate that is valid today"))
        elif certificate.not_valid_before_utc > now:
            start = certificate.not_valid_before_utc.date()
            found.append(
                Flaw("certificate", f"is not valid before {start}{which}", "a certificate valid today")
            )
    return found
