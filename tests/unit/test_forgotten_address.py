"""A core that is gone is gone at once for the proxy, and not after its kernel has forgotten it."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tasks.harbor.on_node import containers

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are root's to make"),
]

GONE, OWN, BESIDE = "10.251.7.9", "10.251.7.1/24", "10.251.7.2/24"
CONNECT = f"""
import socket, sys, time
begun = time.monotonic()
try:
    socket.create_connection(({GONE!r}, 8080), timeout=6).close()
except OSError as error:
    print(type(error).__name__, error.errno)
print(time.monotonic() - begun)
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=10, capture_output=True)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The process of a proxy in a network of its own, that has just spoken with a core which is no more."""
    assert shutil.which("nsenter")
    name = f"harbor-ha-{os.getpid()}"
    inside = ["ip", "netns", "exec", name]
    ip("netns", "add", name)
    try:
        ip("link", "add", f"v{os.getpid()}", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("addr", "add", OWN, "dev", f"v{os.getpid()}")
        ip("link", "set", f"v{os.getpid()}", "up")
        # The error that nobody answers comes over the loopback device.
        ups = (["link", "set", device, "up"] for device in ("lo", "eth0"))
        for words in (["addr", "add", BESIDE, "dev", "eth0"], *ups):
            subprocess.run([*inside, "ip", *words], check=True, timeout=10)
        known = ["neigh", "replace", GONE, "lladdr", "02:00:00:00:00:09", "dev", "eth0", "nud", "reachable"]
        subprocess.run([*inside, "ip", *known], check=True, timeout=10)
        with subprocess.Popen([*inside, "sleep", "300"]) as process:
            monkeypatch.setattr(containers, "inspect", lambda _: {"State": {"Pid": process.pid}})
            yield process.pid
            process.kill()
    finally:
        ip("netns", "del", name)


def connect(pid: int) -> tuple[str, float]:
    """Try to reach the core that is gone, as nginx does; what came of it, and how many seconds it took."""
    argv = ["nsenter", "--net", "--target", str(pid), sys.executable, "-c", CONNECT]
    said = subprocess.run(argv, check=True, timeout=20, capture_output=True, text=True).stdout.splitlines()
    return said[0], float(said[1])


def test_a_push_that_meets_a_core_that_is_gone_fails_at_once_and_can_be_tried_again(proxy: int) -> None:
    before = time.monotonic()
    # Given up by itself after six seconds, or told by the kernel, which at last asks three times, a second apart: after
    # some eight seconds, or three where it had begun to doubt the address before.
    _, hung_s = connect(proxy)
    assert hung_s >= 3.0 - 0.5, "the kernel knows better now: is this still needed?"
    assert time.monotonic() - before < 20
    containers.forget_address("nginx", GONE)
    said, seconds = connect(proxy)
    assert "113" in said
    assert seconds < 1.5


def test_a_proxy_that_is_not_there_and_an_address_that_is_not_known_are_no_errors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(containers, "run", lambda *_: pytest.fail("nothing is to be done"))
    monkeypatch.setattr(containers, "inspect", lambda _: None)
    containers.forget_address("nginx", GONE)
    monkeypatch.setattr(containers, "inspect", lambda _: {"State": {"Pid": 1}})
    containers.forget_address("nginx", "")
