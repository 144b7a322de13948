"""One pooled, authenticated SSH connection a host, with the host key pinned."""

import base64
import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import paramiko

from blocks import SshHost
from blocks.keys import load_private_key
from tasks.errors import HarborHaError, HostKeyChanged, HostUnreachable, LoginRefused, RemoteConnectionLost

# For the banner, the login and a session: what a machine that lives may take when it is busy.
CONNECT_TIMEOUT_S = 3.0
# A machine that lives completes the handshake in its kernel, at once, however busy it is; the first packet may get
# lost, and is sent again after one second, with a quarter for its answer. A failover looks at a machine without power
# again and again.
HANDSHAKE_TIMEOUT_S = 1.25
# sshd's default MaxSessions is 10 channels a connection; the eleventh is refused, not queued.
MAX_CHANNELS = 8
KEEPALIVE_S = 5


@dataclass(frozen=True)
class Target:
    """Where and as whom to log in; hashable, so that it is the pool's key."""

    name: str
    address: str
    port: int
    user: str
    host_key: str
    private_key: str

    def __repr__(self) -> str:
        return f"Target({self.user}@{self.address}:{self.port})"


def target_of(node: SshHost) -> Target:
    """Take the connection's settings out of a node's block."""
    return Target(
        name=node.name,
        address=node.address,
        port=node.port,
        user=node.user,
        host_key=node.host_key.strip(),
        private_key=node.private_key.get_secret_value(),
    )


class Connection:
    """A connection that is opened when it is first used and opened again when it broke.

    Args:
        target: where to log in.
        via: another host to go through, for the case that the direct path is cut.

    Attributes:
        silent: the last attempt to connect that has ended got no answer; one that is under way says nothing yet.
        heard: the machine's kernel has taken the connection that is made or used now.
    """

    def __init__(self, target: Target, via: "Connection | None" = None) -> None:
        self.target = target
        self.via = via
        self.silent = self.heard = False
        self._client: paramiko.SSHClient | None = None
        self._lock = threading.Lock()
        self._channels = threading.BoundedSemaphore(MAX_CHANNELS)

    @contextlib.contextmanager
    def channel(self, timeout: float) -> Iterator[paramiko.Channel]:
        """Lend a session channel; at most MAX_CHANNELS at once.

        Raises:
            HostUnreachable, HostKeyChanged, LoginRefused: no connection could be made.
        """
        with self._channels:
            channel = self._open_channel(timeout)
            try:
                yield channel
            finally:
                channel.close()

    def close(self) -> None:
        """Close the connection; the next use opens it again."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _open_channel(self, timeout: float) -> paramiko.Channel:
        # Nothing was sent yet, so a second attempt over a fresh connection cannot repeat an effect.
        # A pooled connection whose host lost power looks alive until it is used.
        for attempt in (1, 2):
            transport = self._transport()
            try:
                return transport.open_session(timeout=min(timeout, CONNECT_TIMEOUT_S))
            except Exception as error:
                # Not only paramiko's own: its thread hands on whatever it stumbled over in what was sent.
                self._drop(transport)
                if attempt == 2:
                    raise HostUnreachable(
                        f"The SSH connection broke while a session was opened ({_in_words(error)}).",
                        where=self.target.name,
                        meaning="The machine may be down, overloaded or cut off.",
                        remedy=f"Try `ssh {self.target.user}@{self.target.address}` from the orchestrator.",
                    ) from error
        raise AssertionError("unreachable")

    def _drop(self, transport: paramiko.Transport) -> None:
        """Close a connection that broke, unless somebody has made another one since.

        Of three who waited on a broken connection each closed the one that the one before had just made, and the
        third gave the node up.
        """
        with self._lock:
            if self._client is not None and self._client.get_transport() in (transport, None):
                self._client.close()
                self._client = None

    def _transport(self) -> paramiko.Transport:
        with self._lock:
            if self._client is not None:
                transport = self._client.get_transport()
                if transport is not None and transport.is_active():
                    return transport
                self._client.close()
            self._client = self._connect()
            transport = self._client.get_transport()
            if transport is None:
                raise RemoteConnectionLost("The SSH connection closed at once.", where=self.target.name)
            transport.set_keepalive(KEEPALIVE_S)
            return transport

    def _connect(self) -> paramiko.SSHClient:
        target = self.target
        client = paramiko.SSHClient()
        kind, _, rest = target.host_key.partition(" ")
        known = paramiko.PKey.from_type_string(kind, _base64(rest))
        client.get_host_keys().add(_known_name(target), kind, known)
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        self.heard, way = False, None
        try:
            key = load_private_key(target.private_key)
            way = self._way()
            self.heard = True
            client.connect(
                target.address,
                port=target.port,
                username=target.user,
                pkey=key,
                banner_timeout=CONNECT_TIMEOUT_S,
                auth_timeout=CONNECT_TIMEOUT_S,
                channel_timeout=CONNECT_TIMEOUT_S,
                look_for_keys=False,
                allow_agent=False,
                sock=way,
            )
        except Exception as error:
            self.silent = True
            client.close()
            if way is not None:
                way.close()
            raise _explained(error, target) from error
        self.silent = False
        return client

    def _way(self) -> "socket.socket | paramiko.Channel":
        """Reach the machine's SSH port, from here or from the host in between."""
        place = (self.target.address, self.target.port)
        if self.via is None:
            way = socket.create_connection(place, timeout=HANDSHAKE_TIMEOUT_S)
            # A command is several small packets; with Nagle's algorithm the second waits 40 ms for a delayed ACK.
            way.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return way
        transport = self.via._transport()
        try:
            return transport.open_channel(
                "direct-tcpip", place, ("127.0.0.1", 0), timeout=HANDSHAKE_TIMEOUT_S
            )
        except Exception as error:
            raise HostUnreachable(
                f"{self.via.target.name} could not reach it either ({_in_words(error)}).",
                where=self.target.name,
            ) from error


def read_host_key(address: str, port: int = 22) -> str:
    """Ask an SSH server for its host key, as ssh-keyscan does; nobody logs in.

    Returns:
        `TYPE BASE64`, which proves nothing before somebody has compared it with the machine's own.

    Raises:
        HostUnreachable: no SSH server answers there, within 5 s.
    """
    try:
        with socket.create_connection((address, port), timeout=HANDSHAKE_TIMEOUT_S) as way:
            transport = paramiko.Transport(way)
            try:
                transport.banner_timeout = CONNECT_TIMEOUT_S
                transport.start_client(timeout=CONNECT_TIMEOUT_S)
                key = transport.get_remote_server_key()
            finally:
                transport.close()
    except Exception as error:
        raise _explained(error, Target(address, address, port, "", "", "")) from error
    return f"{key.get_name()} {key.get_base64()}"


def _base64(key_and_comment: str) -> bytes:
    return base64.b64decode(key_and_comment.split()[0])


def _known_name(target: Target) -> str:
    return target.address if target.port == 22 else f"[{target.address}]:{target.port}"


def _explained(error: Exception, target: Target) -> Exception:
    where = target.name
    if isinstance(error, HarborHaError):
        return error
    if isinstance(error, paramiko.BadHostKeyException) or "not found in known_hosts" in str(error):
        return HostKeyChanged(
            f"{target.address} answered with another host key than the pinned one.",
            where=where,
            meaning="The machine was reinstalled, or somebody answers in its place. Nothing was sent to it.",
            remedy=f"Compare with `ssh-keyscan {target.address}` over a path you trust; then correct "
            "host_key in the site file and apply it again.",
        )
    if isinstance(error, paramiko.AuthenticationException):
        return LoginRefused(
            f"{target.address} did not accept the key for user {target.user}.",
            where=where,
            meaning="The machine is up; the key or the user in the site file is wrong.",
            remedy=f"Put the public key into {target.user}'s authorized_keys, or correct the site file.",
        )
    # Whatever listens there may send anything, and paramiko's parser raises what it stumbles over.
    return HostUnreachable(
        f"No SSH answer from {target.address}:{target.port} ({_in_words(error)}).",
        where=where,
        meaning="It may be down, or only unreachable from here.",
        remedy="Check power, address, firewall and sshd.",
    )


def _in_words(error: Exception) -> str:
    """Say why there is no connection, without what the other side has said."""
    text = str(error)
    if text == "Error reading SSH protocol banner":
        return "it takes the connection and says nothing, as a machine that hangs"
    banner = text.startswith(("Error reading SSH protocol banner", "Indecipherable", "Incompatible version"))
    if banner or not isinstance(error, OSError | EOFError | paramiko.SSHException):
        return "what answers there does not speak SSH 2"
    return text or type(error).__name__
