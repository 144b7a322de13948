"""Beacons of nodes that do not exist: a process that says their lines, over pipes or as an SSH server.

Its input: `cut NUMBER` makes a node say nothing any more.
"""

import json
import os
import re
import socket
import sys
import threading
import time
from contextlib import suppress
from io import StringIO
from typing import Any

import paramiko

_BEGIN = re.compile(rb"harbor-ha-begin-[0-9a-f]+")
# When each was cut off, by the monotonic clock.
_cut: dict[int, float] = {}


def silence_of(primary: int) -> float:
    """For how long a standby has not heard its primary."""
    return 0.3 if primary not in _cut else 0.3 + time.monotonic() - _cut[primary]


def line_of(number: int, beat: int) -> bytes:
    """Say how a node is: the even ones are primaries, which write."""
    standby = number % 2 == 1
    lsn = f"0/{0x5000000 + beat * 4096:X}"
    sender = {
        "name": "ha_node_b",
        "state": "streaming",
        "sync_state": "async",
        "lag_bytes": 0,
        "lag_s": 0.001,
    }
    sql: dict[str, Any] = {
        "number": beat,
        "in_recovery": standby,
        "timeline": 2,
        "lsn": lsn,
        "replay_lsn": lsn,
    }
    sql.update(read_only=False, sync_names="", senders=[] if standby else [sender])
    sql["receiver"] = {"status": "streaming", "age_s": silence_of(number - 1)} if standby else None
    told = {"n": beat, "up": time.monotonic(), "boot": "boot", "sql": sql, "sql_age": 0.1, "ended": False}
    told.update(door="open", sql_well_age=0.1, door_well_age=0.1, guard_age=2.0, shared_age=None)
    if beat % 20 == 1:
        told["notes"] = {"accepted": {"primary": "node-a", "timeline": 2}, "guard": {"self_fence_s": None}}
    return json.dumps(told, separators=(",", ":")).encode() + b"\n"


def speak(pipes: list[int], beat_s: float) -> None:
    """Say a line of each node in turn, evenly over the time of a beat."""
    begun, beat = time.monotonic(), 0
    while True:
        beat += 1
        for number, pipe in enumerate(pipes):
            due = begun + (beat - 1 + number / len(pipes)) * beat_s
            time.sleep(max(0.0, due - time.monotonic()))
            if number not in _cut:
                with suppress(OSError):
                    os.write(pipe, line_of(number, beat))


class _Login(paramiko.ServerInterface):
    """Lets in whoever comes; the user's name is the node's number."""

    def __init__(self, beat_s: float) -> None:
        self.number, self.beat_s = 0, beat_s

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        self.number = int(username.removeprefix("n"))
        return int(paramiko.common.AUTH_SUCCESSFUL)

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return int(paramiko.common.OPEN_SUCCEEDED)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        found = _BEGIN.search(command)
        begin = found[0] if found else b""
        threading.Thread(target=self._speak, args=(channel, begin), daemon=True).start()
        return True

    def _speak(self, channel: paramiko.Channel, begin: bytes) -> None:
        beat = 0
        with suppress(OSError, EOFError):
            channel.sendall(b"\n" + begin + b"\n")
            while True:
                beat += 1
                if self.number not in _cut:
                    channel.sendall(line_of(self.number, beat))
                time.sleep(self.beat_s)


def serve(beat_s: float) -> None:
    """Answer as an SSH server; its port, its host key and the key for its users come on the output."""
    key = paramiko.ECDSAKey.generate()
    text = StringIO()
    key.write_private_key(text)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    told = {"port": listener.getsockname()[1], "host_key": f"{key.get_name()} {key.get_base64()}"}
    print(json.dumps({**told, "private_key": text.getvalue()}), flush=True)
    while True:
        connection, _ = listener.accept()
        transport = paramiko.Transport(connection)
        transport.add_server_key(key)
        threading.Thread(
            target=lambda made=transport: _begin(made, beat_s),  # type: ignore[misc]
            daemon=True,
        ).start()


def _begin(transport: paramiko.Transport, beat_s: float) -> None:
    with suppress(paramiko.SSHException, EOFError):
        transport.start_server(server=_Login(beat_s))


def _obey() -> None:
    for line in sys.stdin:
        _cut[int(line.split()[1])] = time.monotonic()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_obey, daemon=True).start()
    given = json.loads(sys.argv[1])
    if given["pipes"]:
        speak(given["pipes"], given["beat_s"])
    else:
        serve(given["beat_s"])
