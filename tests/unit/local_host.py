"""A node that is this machine: the same calls as `Host`, run here, for tests of what runs on nodes."""

import fcntl
import json
import os
import pwd
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from tasks.errors import RemoteCommandFailed, RemoteTimeout
from tasks.hosts.connection import Completed, Host


class LocalProcess:
    """What `Host.stream` gives, for a process on this machine."""

    def __init__(self, process: "subprocess.Popen[bytes]", argv: Sequence[str], timeout: float) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.stdin, self.stdout = cast(BinaryIO, process.stdin), cast(BinaryIO, process.stdout)
        self._process, self._argv, self._timeout = process, tuple(argv), timeout
        self._stderr = b""
        self._drain = threading.Thread(target=self._read_stderr, daemon=True)
        self._drain.start()

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        self._stderr = self._process.stderr.read()

    def close_stdin(self) -> None:
        self.stdin.close()

    def wait(self) -> Completed:
        status = self._process.wait(self._timeout)
        self._drain.join()
        done = Completed(self._argv, status, "", self._stderr.decode(errors="replace"))
        if status != 0:
            raise RemoteCommandFailed(" ".join(self._argv)[:200], "local", status, done.stderr)
        return done


class LocalHost:
    """This machine as a node. Commands for another user are run as that user when the tests run as root."""

    name = "local"
    address = "127.0.0.1"

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | bytes = b"",
        timeout: float = 30.0,
        check: bool = True,
        user: str | None = None,
    ) -> Completed:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        try:
            done = subprocess.run(
                as_user(argv, user), input=data, capture_output=True, timeout=timeout, cwd="/"
            )
        except subprocess.TimeoutExpired:
            raise RemoteTimeout(f"`{argv[0]}` did not end in time.", where=self.name) from None
        out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
        completed = Completed(tuple(argv), done.returncode, out, err)
        if check and done.returncode:
            raise RemoteCommandFailed(" ".join(argv)[:200], self.name, done.returncode, completed.stderr)
        return completed

    def python(
        self, source: str, payload: object = None, *, timeout: float = 30.0, user: str | None = None
    ) -> Any:
        return json.loads(
            self.run(["python3", "-c", source], stdin=json.dumps(payload), timeout=timeout, user=user).stdout
        )

    @contextmanager
    def stream(
        self, argv: Sequence[str], *, user: str | None = None, timeout: float, marked: bool = True
    ) -> Iterator[LocalProcess]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            as_user(argv, user), stdin=pipe, stdout=pipe, stderr=pipe, cwd="/", start_new_session=True
        )
        assert process.stdout is not None
        with suppress(OSError):
            # As much may be on its way as in the window of an SSH channel. With a pipe's 64 KiB, one measures
            # how soon the kernel lets the reader run.
            fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 1 << 20)
        try:
            yield LocalProcess(process, argv, timeout)
        finally:
            # The whole group: killing runuser alone leaves its child holding our pipes open.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def read(self, path: str) -> bytes | None:
        file = Path(path)
        return file.read_bytes() if file.exists() else None

    def put(
        self,
        path: str,
        content: str | bytes,
        *,
        mode: int = 0o644,
        owner: str = "root:root",
        timeout: float = 30.0,
    ) -> bool:
        file, data = Path(path), content.encode() if isinstance(content, str) else content
        if file.exists() and file.read_bytes() == data and file.stat().st_mode & 0o777 == mode:
            return False
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        file.chmod(mode)
        return True

    def upload(self, local: Path, remote: str, *, mode: int = 0o644, timeout: float) -> None:
        Path(remote).write_bytes(local.read_bytes())
        Path(remote).chmod(mode)


def local_host() -> Host:
    """Give this machine as a `Host`."""
    return cast(Host, LocalHost())


def as_user(argv: Sequence[str], user: str | None) -> list[str]:
    """Prefix a command so that it runs as the user; unchanged when that is who we are."""
    if user is None or os.geteuid() != 0 or pwd.getpwuid(os.geteuid()).pw_name == user:
        return list(argv)
    return ["runuser", "-u", user, "--", *argv]
