"""A whole, correct site file with its keys and certificates, for tests to break one thing in."""

import base64
import ipaddress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyrage
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def ssh_private_key() -> str:
    """A new Ed25519 key in OpenSSH's format."""
    key = ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


def ssh_host_key() -> str:
    """A new public host key as `ssh-ed25519 AAAA…`."""
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def certificate(*names: str, start: datetime = NOW - timedelta(days=30), days: int = 365) -> tuple[str, str]:
    """A self-signed certificate for DNS names and addresses, and its key, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "harbor.example.com")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
    )
    if names:
        general: list[x509.GeneralName] = [
            x509.IPAddress(ipaddress.ip_address(n)) if n[0].isdigit() else x509.DNSName(n) for n in names
        ]
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
    return pem, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@dataclass
class SiteOnDisk:
    """A site file as plain data that a test may change before it is written."""

    directory: Path
    data: dict[str, Any] = field(default_factory=dict)

    def secret(self, name: str, text: str, mode: int = 0o600) -> dict[str, str]:
        """Write a file beside the site file and return the reference to it."""
        path = self.directory / name
        path.write_text(text)
        path.chmod(mode)
        return {"file": name}

    def write(self) -> Path:
        """Write the site file and return its path."""
        path = self.directory / "site.yml"
        path.write_text(yaml.safe_dump(self.data, sort_keys=False))
        return path


def correct_site(directory: Path) -> SiteOnDisk:
    """A site without any mistake."""
    site = SiteOnDisk(directory)
    pem, key = certificate("harbor.example.com")
    (directory / "harbor.tgz").write_bytes(b"installer")
    ssh_key = site.secret("id_ed25519", ssh_private_key())
    site.data = {
        "name": "example",
        "nodes": {
            "node-a": {"address": "10.20.0.11", "private_key": ssh_key, "host_key": ssh_host_key()},
            "node-b": {"address": "10.20.0.12", "private_key": ssh_key, "host_key": ssh_host_key()},
        },
        "postgres": {
            "major": 15,
            "application": {"user": "harbor", "password": site.secret("pg-harbor", "Harbor-secret.1\n")},
            "replication": {
                "user": "replicator",
                "password": site.secret("pg-repl", "Replication-secret.1\n"),
            },
            "rewind": {"user": "rewinder", "password": site.secret("pg-rewind", "Rewind-secret.1\n")},
        },
        "harbor": {
            "installer": "harbor.tgz",
            "sha256": "a" * 64,
            "version": "v2.12.4",
            "hostname": "harbor.example.com",
            "certificate": site.secret("harbor.crt", pem, 0o644),
            "certificate_key": site.secret("harbor.key", key),
            "admin_password": site.secret("admin", "Harbor12345\n"),
        },
        "redis": {"host": "10.20.0.21", "password": site.secret("redis", "Redis-secret.1\n")},
        "nas": {"path": "/mnt/harbor"},
        "balancer": {
            "kind": "haproxy",
            "address": "10.20.0.10",
            "admin_host": "10.20.0.10",
            "admin_port": 9999,
        },
        "oss": {
            "endpoint": "https://oss-cn-shanghai.aliyuncs.com",
            "region": "cn-shanghai",
            "bucket": "harbor-backup",
            "access_key_id": "LTAIexample",
            "access_key_secret": site.secret("oss", "Oss-secret-1\n"),
        },
        "failover": {"fence_command": ["/usr/local/bin/stop-machine", "{node}"]},
        "backup": {"age_recipients": [str(pyrage.x25519.Identity.generate().to_public())]},
    }
    return site


def cut_in_half(host_key: str) -> str:
    """A host key that was copied only in part: valid base64 of half the key."""
    kind, blob = host_key.split()
    return f"{kind} {base64.b64encode(base64.b64decode(blob)[:30]).decode()}"


def fresh_certificate() -> dict[str, str]:
    """A certificate that is valid by the clock of this machine, which the command line asks."""
    pem, key = certificate("harbor.example.com", start=datetime.now(UTC) - timedelta(days=1))
    return {"certificate": pem, "certificate_key": key}
