"""HTTPS to Harbor at a chosen address: one node or the load balancer, by the site's name and certificate."""

import base64
import http.client
import json
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from blocks import HarborSite
from tasks.errors import HarborHaError

# Answers of Harbor's API are small; a blob is read in pieces by its caller's limit.
MAX_BODY = 64 << 20


class HarborUnreachable(HarborHaError):
    """No answer over HTTPS; it may be down, starting, or only unreachable from here."""


class HarborRefused(HarborHaError):
    """Harbor answered with an error status.

    Attributes:
        status: the HTTP status.
        code: Harbor's own word for it, such as DENIED; empty where something before Harbor has answered.
    """

    def __init__(
        self,
        what: str,
        status: int,
        *,
        where: str = "",
        meaning: str = "",
        remedy: str = "",
        code: str = "",
    ) -> None:
        self.status = status
        self.code = code
        super().__init__(what, where=where, meaning=meaning, remedy=remedy)

    @property
    def by_policy(self) -> bool:
        """Whether Harbor works and was told not to: read-only mode, or another password than ours."""
        return self.status in (401, 403) and bool(self.code)


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Parse the body."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Endpoint:
    """Where and how Harbor is reached.

    Attributes:
        address, port: what is connected to.
        hostname: the site's name: SNI, Host header, and what the certificate must be for.
        certificate: PEM chain that is trusted in addition to the system's authorities.
        user, password: for Basic authentication.
        told: where clients are told to come, `https://NAME[:PORT]`; "" where it is not known.
    """

    address: str
    port: int
    hostname: str
    certificate: str = field(repr=False)
    user: str = "admin"
    password: str = field(default="", repr=False)
    told: str = ""

    def authorization(self) -> dict[str, str]:
        """Give the header of Basic authentication."""
        token = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"Authorization": f"Basic {token}"}


def clients_address(site: HarborSite) -> str:
    """Give the address at which clients reach the site, as they write it."""
    port = site.balancer.port
    return f"https://{site.harbor.hostname}" + ("" if port == 443 else f":{port}")


def same_address(one: str, other: str) -> bool:
    """Tell whether two addresses lead to the same scheme, name and port."""
    return _origin(one) is not None and _origin(one) == _origin(other)


def _origin(address: str) -> tuple[str, str, int] | None:
    try:
        parts = urlsplit(address)
        usual = {"https": 443, "http": 80}.get(parts.scheme, 0)
        return (parts.scheme, parts.hostname or "", parts.port or usual) if parts.hostname else None
    except ValueError:
        return None


def through_balancer(site: HarborSite) -> Endpoint:
    """Reach Harbor as clients do."""
    return _endpoint(site, site.balancer.address, site.balancer.port)


def through_node(site: HarborSite, node_name: str) -> Endpoint:
    """Reach one node's Harbor directly."""
    return _endpoint(site, site.node(node_name).address, site.harbor.https_port)


class Session:
    """Requests over one kept connection, opened at the first request. Not for several threads.

    Harbor's session cookie is never kept: with it, every write would need a CSRF token.

    Args:
        endpoint: where to.
        timeout: seconds for each wait on the network, and for a request as a whole.
    """

    def __init__(self, endpoint: Endpoint, timeout: float = 10.0) -> None:
        self.endpoint = endpoint
        self.timeout = timeout
        self._connection: http.client.HTTPSConnection | None = None

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def request(
        self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request; never repeated here, since a write may have had its effect.

        Args:
            method: GET, POST…
            target: path with query, or a whole address whose host is ignored: Harbor answers with its public
                name, and following that would leave the node under test for the load balancer.
            body: content.
            headers: more headers.

        Raises:
            HarborUnreachable: no complete answer in time.
        """
        deadline = time.monotonic() + self.timeout
        parts = urlsplit(target)
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        fixed = {"Host": self._host_header(), "User-Agent": "harbor-ha"}
        try:
            if self._connection is None:
                self._connection = _Pinned(self.endpoint, self.timeout)
            self._connection.request(method, path, body, {**fixed, **(headers or {})})
            answer = self._connection.getresponse()
            content = _read(answer, deadline)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._unreachable(method, path, error) from error
        if answer.will_close:
            self.close()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, content)

    def _host_header(self) -> str:
        endpoint = self.endpoint
        return endpoint.hostname if endpoint.port == 443 else f"{endpoint.hostname}:{endpoint.port}"

    def _unreachable(self, method: str, path: str, error: Exception) -> HarborUnreachable:
        endpoint = self.endpoint
        if isinstance(error, ssl.SSLCertVerificationError):
            remedy = "Compare the certificate that it shows with harbor.certificate in the site file."
            meaning = "Something answers there with a certificate that is not the site's."
        else:
            remedy, meaning = "Look at its containers: `docker ps` on the node.", ""
        return HarborUnreachable(
            f"{method} {urlsplit(path).path} got no answer ({error or type(error).__name__}).",
            where=f"{endpoint.address}:{endpoint.port}",
            meaning=meaning,
            remedy=remedy,
        )


class _Pinned(http.client.HTTPSConnection):
    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        super().__init__(endpoint.address, endpoint.port, timeout=timeout, context=_context(endpoint))
        self._endpoint = endpoint
        self._tls = _context(endpoint)

    def connect(self) -> None:
        plain = socket.create_connection((self._endpoint.address, self._endpoint.port), self.timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.sock = self._tls.wrap_socket(plain, server_hostname=self._endpoint.hostname)
        except BaseException:
            plain.close()
            raise


def _context(endpoint: Endpoint) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if endpoint.certificate:
        context.load_verify_locations(cadata=endpoint.certificate)
        # The site's own certificate is trusted as it is, whoever signed it; and a company's CA of 2015 has no
        # key identifiers, which Python 3.13 insists on by default.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _read(answer: http.client.HTTPResponse, deadline: float) -> bytes:
    # A socket's time limit starts anew with every byte that trickles in.
    content = bytearray()
    while block := answer.read(1 << 20):
        content += block
        if time.monotonic() > deadline:
            raise TimeoutError("the answer did not end in time")
        if len(content) > MAX_BODY:
            raise http.client.HTTPException("the answer is larger than 64 MiB")
    return bytes(content)


def _endpoint(site: HarborSite, address: str, port: int) -> Endpoint:
    harbor = site.harbor
    return Endpoint(
        address,
        port,
        harbor.hostname,
        harbor.certificate,
        password=harbor.admin_password.get_secret_value(),
        told=clients_address(site),
    )
