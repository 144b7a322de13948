"""An SSH server on this machine, for tests of what happens between a shell's start-up files and our answers."""

import os
import pwd
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import StringIO
from pathlib import Path

import paramiko

from blocks import SshHost


class _Login(paramiko.ServerInterface):
    """Lets in whoever comes, or whoever is authorized, and runs commands as sshd does: by the user's shell."""

    def __init__(self, env: Mapping[str, str], runs: bool, authorized: Path | None) -> None:
        self._env = dict(env)
        self._runs = runs
        self._authorized = authorized

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        if self._authorized is None or key.get_base64() in self._authorized.read_text():
            return int(paramiko.common.AUTH_SUCCESSFUL)
        return int(paramiko.common.AUTH_FAILED)

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return int(paramiko.common.OPEN_SUCCEEDED)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        if self._runs:
            threading.Thread(target=self._run, args=(channel, command), daemon=True).start()
        return self._runs

    def _run(self, channel: paramiko.Channel, command: bytes) -> None:
        pipe = subprocess.PIPE
        env = {**os.environ, **self._env}
        process = subprocess.Popen(
            ["bash", "-c", command.decode()], stdin=pipe, stdout=pipe, stderr=pipe, env=env
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        given, out, err = process.stdin, process.stdout, process.stderr

        def feed() -> None:
            with suppress(OSError), given:
                while block := channel.recv(65536):
                    given.write(block)
                    given.flush()

        def drain_errors() -> None:
            while block := err.read1(65536):  # type: ignore[attr-defined]
                channel.sendall_stderr(block)

        threads = [threading.Thread(target=target, daemon=True) for target in (feed, drain_errors)]
        for thread in threads:
            thread.start()
        while block := out.read1(65536):  # type: ignore[attr-defined]
            channel.sendall(block)
        threads[1].join()
        channel.send_exit_status(process.wait())
        channel.shutdown_write()
        channel.close()


@contextmanager
def running_sshd(
    env: Mapping[str, str], *, runs: bool = True, authorized: Path | None = None
) -> Iterator[SshHost]:
    """Serve on loopback.

    Args:
        env: what the commands get in addition; with BASH_ENV, a file that bash reads before each command, as it
            reads ~/.bashrc for a command over SSH.
        runs: whether it runs commands at all.
        authorized: a file of public keys that may log in, read anew at each login; None: all may.
    """
    key = paramiko.RSAKey.generate(2048)
    text = StringIO()
    key.write_private_key(text)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            transport.add_server_key(key)
            with suppress(paramiko.SSHException, EOFError, OSError):
                transport.start_server(server=_Login(env, runs, authorized))

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield SshHost(
            name="node-a",
            address="127.0.0.1",
            port=listener.getsockname()[1],
            user=pwd.getpwuid(os.geteuid()).pw_name,
            private_key=text.getvalue(),  # type: ignore[arg-type]
            host_key=f"ssh-rsa {key.get_base64()}",
        )
    finally:
        listener.close()
