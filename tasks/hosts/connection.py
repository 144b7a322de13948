"""A node as the orchestrator reaches it: run, read, write, stream."""

import base64
import contextlib
import hashlib
import json
import os
import secrets
import select
import shlex
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import paramiko

from blocks import SshHost
from tasks.errors import RemoteCommandFailed, RemoteConnectionLost, RemoteTimeout
from tasks.hosts.framing import MAX_NOISE, Frame, describe_noise, is_line, program_name
from tasks.hosts.on_node import put_file
from tasks.hosts.ssh import Connection, Target, target_of
from tasks.hosts.streams import output_of
from tasks.node_program import node_program

# sshd gives a command without a terminal no sbin directories, whoever the user is.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# In the environment of whatever this process starts on a node: what a killed flow left running has another value.
MARK = "HARBOR_HA"
PUT = node_program(put_file)
_TOKEN = secrets.token_hex(6)
_BLOCK = 1 << 16
_STDERR_KEPT = 1 << 16


@dataclass(frozen=True)
class Completed:
    """A remote command that ended."""

    argv: tuple[str, ...]
    exit_status: int
    stdout: str
    stderr: str


class RemoteProcess:
    """A remote command that is running, with its streams."""

    def __init__(
        self, channel: paramiko.Channel, argv: Sequence[str], where: str, deadline: float, frame: Frame
    ) -> None:
        self._channel = channel
        self._argv = tuple(argv)
        self._where = where
        self._deadline = deadline
        self._stderr = bytearray()
        self.stdout = output_of(channel)
        self.stdin = cast(BinaryIO, channel.makefile_stdin("wb", _BLOCK))
        self._drain = threading.Thread(target=self._read_stderr, daemon=True)
        self._drain.start()
        self.noise = self._skip_noise(frame)

    def _skip_noise(self, frame: Frame) -> str:
        """Read up to the line with which our output begins; a dump with a greeting in front of it is none."""
        before = bytearray()
        try:
            while len(before) < MAX_NOISE and (line := self.stdout.readline(_BLOCK)):
                if is_line(line, frame.begin):
                    break
                before += line
        except TimeoutError as error:
            raise _timed_out(self._argv, self._where) from error
        return describe_noise(bytes(before))

    def close_stdin(self) -> None:
        """Tell the command that its input has ended."""
        self.stdin.flush()
        self._channel.shutdown_write()

    def wait(self) -> Completed:
        """Wait for the end of the command, whose output must have been read.

        Raises:
            RemoteCommandFailed: it ended with a non-zero status.
            RemoteTimeout: it did not end in time.
        """
        if not self._channel.status_event.wait(max(0.0, self._deadline - time.monotonic())):
            raise _timed_out(self._argv, self._where)
        self._drain.join(5)
        status = self._channel.recv_exit_status()
        stderr = self._stderr.decode("utf-8", "replace")
        return _checked(Completed(self._argv, status, "", stderr), self._where)

    def _read_stderr(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while block := self._channel.recv_stderr(_BLOCK):
                self._stderr += block
                del self._stderr[:-_STDERR_KEPT]


class Host:
    """One node; safe to use from several threads.

    Args:
        connection: how it is reached.

    Attributes:
        noise: what the last command had around its output that is not ours, in words; empty when there was none.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.name = connection.target.name
        self.address = connection.target.address
        self.noise = ""

    @property
    def silent(self) -> bool:
        """Whether the last attempt to connect got no answer."""
        return self._connection.silent

    @property
    def heard(self) -> bool:
        """Whether the machine has taken the connection that is made or used now; it may still say nothing over it."""
        return self._connection.heard

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | bytes = b"",
        timeout: float = 30.0,
        check: bool = True,
        user: str | None = None,
    ) -> Completed:
        """Run a command to its end, as root unless another user is named.

        Args:
            argv: the command and its arguments; never a secret among them.
            stdin: what it reads; the way for secrets.
            timeout: seconds, enforced here and on the node, where the command is killed.
            check: raise when it fails.
            user: the user to run it as.

        Raises:
            RemoteCommandFailed: non-zero exit status, with check.
            RemoteTimeout: not ended in time; whether it had an effect is not known.
            RemoteConnectionLost: the connection broke; whether it had an effect is not known.
            HostUnreachable, HostKeyChanged, LoginRefused: nothing was run.
        """
        data = stdin.encode() if isinstance(stdin, str) else stdin
        return self._run(argv, Frame.draw(), data, timeout=timeout, check=check, user=user)

    def _run(
        self,
        argv: Sequence[str],
        frame: Frame,
        data: bytes,
        *,
        timeout: float,
        check: bool = True,
        user: str | None = None,
    ) -> Completed:
        deadline = time.monotonic() + timeout
        with self._connection.channel(timeout) as channel:
            _begin(channel, self._command(argv, timeout, user, frame), self.name)
            out, err, status = _collect(channel, data, deadline + 1.0, argv, self.name)
        before, ours = frame.cut(out)
        self.noise = describe_noise(before)
        completed = Completed(
            tuple(argv), status, ours.decode("utf-8", "replace"), err.decode("utf-8", "replace")
        )
        if status in (124, 137) and time.monotonic() >= deadline - 0.5:
            raise _timed_out(argv, self.name)
        return _checked(completed, self.name) if check else completed

    def python(
        self, source: str, payload: object = None, *, timeout: float = 30.0, user: str | None = None
    ) -> Any:
        """Run a Python program on the node in one round trip.

        Args:
            source: the program; it reads JSON from its standard input and writes JSON to its output.
            payload: what it reads.
            timeout: seconds.
            user: the user to run it as; root when empty.

        Raises:
            AnswerUnframed: it ended well, and its answer cannot be read.
            what `run` raises.
        """
        frame = Frame.draw()
        data = json.dumps(payload).encode()
        done = self._run(frame.program(source), frame, data, timeout=timeout, user=user)
        answer, after = frame.answer(done.stdout, self.name)
        self.noise = "; ".join(filter(None, (self.noise, describe_noise(b"", after))))
        return answer

    @contextlib.contextmanager
    def stream(
        self, argv: Sequence[str], *, user: str | None = None, timeout: float, marked: bool = True
    ) -> Iterator[RemoteProcess]:
        """Run a command whose input or output does not fit into memory.

        Leaving the context early closes the channel, which ends the command at its next write.

        Args:
            marked: another flow waits for its end when it finds it running; not for what only looks.
        """
        deadline = time.monotonic() + timeout
        with self._connection.channel(timeout) as channel:
            channel.settimeout(timeout)
            frame = Frame.draw()
            _begin(channel, self._command(argv, timeout, user, frame, marked=marked), self.name)
            process = RemoteProcess(channel, argv, self.name, deadline, frame)
            self.noise = process.noise
            yield process

    def read(self, path: str) -> bytes | None:
        """Read a small file; None when there is none."""
        answer = self.python(_READ, {"path": path})
        return None if answer is None else base64.b64decode(answer)

    def put(
        self,
        path: str,
        content: str | bytes,
        *,
        mode: int = 0o644,
        owner: str = "root:root",
        timeout: float = 30.0,
    ) -> bool:
        """Write a small file atomically if its content, mode or owner differ.

        Returns:
            Whether anything was changed.
        """
        data = content.encode() if isinstance(content, str) else content
        payload = {"path": path, "data": base64.b64encode(data).decode(), "mode": mode, "owner": owner}
        return bool(self.python(PUT, payload, timeout=timeout))

    def upload(self, local: Path, remote: str, *, mode: int = 0o644, timeout: float) -> None:
        """Copy a large file to the node; it appears under its name only when it is complete and equal."""
        digest = hashlib.sha256()
        partial = f"{remote}.partial"
        script = f"cat > {shlex.quote(partial)} && sha256sum {shlex.quote(partial)}"
        with self.stream(["sh", "-c", script], timeout=timeout) as process, local.open("rb") as source:
            while block := source.read(1 << 20):
                digest.update(block)
                process.stdin.write(block)
            process.close_stdin()
            answer = process.stdout.read().split()
            process.wait()
        if not answer or answer[0].decode() != digest.hexdigest():
            raise RemoteConnectionLost(
                f"{remote} did not arrive whole.", where=self.name, remedy="Run the flow again."
            )
        self.run(["chmod", f"{mode:o}", partial])
        self.run(["mv", "-f", partial, remote])

    def close(self) -> None:
        """Close the connection; it is opened again when the host is next used."""
        self._connection.close()

    def _command(
        self, argv: Sequence[str], timeout: float, user: str | None, frame: Frame, *, marked: bool = True
    ) -> str:
        limit = ["timeout", "--kill-after=5", f"{timeout:.1f}", *argv]
        command = ["env", "LC_ALL=C", f"PATH={_PATH}", *([mark()] if marked else []), *limit]
        login = self._connection.target.user
        if user is None and login != "root":
            command = ["sudo", "-n", "--", *command]
        elif user is not None and user != login:
            switch = ["runuser", "-u", user, "--"] if login == "root" else ["sudo", "-n", "-u", user, "--"]
            command = [*switch, *command]
        return frame.shell(command)


_pool: dict[tuple[Target, Target | None, int], Host] = {}
_pool_lock = threading.Lock()


def mark() -> str:
    """Return the entry in the environment by which this process knows what it started on a node.

    Flows that are forked from one process share its token: the second took what the first had left running for
    its own, and installed PostgreSQL beside it.
    """
    return f"{MARK}={_TOKEN}-{os.getpid()}"


def connect(node: SshHost, via: SshHost | None = None) -> Host:
    """Give the node's host, with one pooled connection a process.

    Args:
        node: the machine.
        via: another node to go through.
    """
    # The process id is part of the key: a forked child must not write into its parent's socket.
    key = (target_of(node), None if via is None else target_of(via), os.getpid())
    with _pool_lock:
        if key not in _pool:
            jump = None if via is None else Connection(target_of(via))
            _pool[key] = Host(Connection(key[0], jump))
        return _pool[key]


def _begin(channel: paramiko.Channel, command: str, where: str) -> None:
    """Start a command; a server that lets us in and then runs nothing is one of our errors too."""
    try:
        channel.exec_command(command)
    except Exception as error:
        raise RemoteConnectionLost(
            f"The server did not start a command ({type(error).__name__}).",
            where=where,
            meaning="Whether it had an effect is not known until the facts are read again.",
            remedy="Look whether the login user may run commands: its shell, ForceCommand, `command=` before its key.",
        ) from error


def _checked(completed: Completed, where: str) -> Completed:
    if completed.exit_status != 0:
        raise RemoteCommandFailed(
            shlex.join(_shown(completed.argv)), where, completed.exit_status, completed.stderr
        )
    return completed


def _shown(argv: Sequence[str]) -> list[str]:
    # A program given with -c is pages long; its first line is its name (`tasks.node_source`).
    words = program_name(list(argv))
    return [word if len(word) <= 200 else f"{word.splitlines()[0][:60]}…" for word in words]


def _timed_out(argv: Sequence[str], where: str) -> RemoteTimeout:
    return RemoteTimeout(
        f"`{shlex.join(_shown(argv))}` did not end in time.",
        where=where,
        meaning="Whether it had an effect is not known until the facts are read again.",
        remedy="Run the flow again; it looks first.",
    )


def _collect(
    channel: paramiko.Channel, stdin: bytes, deadline: float, argv: Sequence[str], where: str
) -> tuple[bytes, bytes, int]:
    out, err = bytearray(), bytearray()
    writer = threading.Thread(target=_feed, args=(channel, stdin), daemon=True)
    writer.start()
    while not (channel.eof_received and channel.status_event.is_set()):
        left = deadline - time.monotonic()
        if left <= 0:
            raise _timed_out(argv, where)
        if channel.closed and not channel.status_event.is_set():
            break
        if channel.eof_received:
            # Readable for ever from now on: to wait by `select` took a processor until the status came.
            channel.status_event.wait(min(left, 0.05))
        else:
            select.select([channel], [], [], min(left, 0.05))
        _drain(channel, out, err)
    _drain(channel, out, err)
    if not channel.status_event.is_set() or channel.exit_status == -1:
        raise RemoteConnectionLost(
            f"The connection broke while `{shlex.join(_shown(argv))}` was running.",
            where=where,
            meaning="Whether it had an effect is not known until the facts are read again.",
            remedy="Run the flow again; it looks first.",
        )
    return bytes(out), bytes(err), channel.exit_status


def _feed(channel: paramiko.Channel, stdin: bytes) -> None:
    # A command that does not read its input closes it; its exit status says what happened.
    with contextlib.suppress(OSError, EOFError):
        channel.sendall(stdin)
        channel.shutdown_write()


def _drain(channel: paramiko.Channel, out: bytearray, err: bytearray) -> None:
    while channel.recv_ready():
        out += channel.recv(_BLOCK)
    while channel.recv_stderr_ready():
        err += channel.recv_stderr(_BLOCK)


_READ = """
import base64, json, sys
path = json.load(sys.stdin)["path"]
try:
    with open(path, "rb") as source:
        print(json.dumps(base64.b64encode(source.read()).decode()))
except FileNotFoundError:
    print("null")
"""
