"""HTTPS for the OSS server: pgBackRest speaks S3 over TLS only, and checks the certificate."""

import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Tls:
    """A second port with TLS in front of the same bucket.

    Attributes:
        certificate: PEM file; its names are those that clients ask for, bucket in front included.
        key: PEM file.
        port: 0 takes a free one.
    """

    certificate: Path
    key: Path
    port: int = 0

    def context(self) -> ssl.SSLContext:
        """Load certificate and key."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(self.certificate, self.key)
        return made
