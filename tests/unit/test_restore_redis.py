"""Redis before a restore: whether it can be emptied is asked before anything is changed, and asking empties nothing."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from blocks import HarborSite, read_site_file
from tasks.backup.restore.on_node.flush_redis import ask
from tasks.backup.restore.revive import RedisRefused, ask_redis, empty_caches
from tests.unit.local_host import local_host
from tests.unit.site_on_disk import NOW, correct_site

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="no Redis is installed"),
]
PASSWORD = "Redis-secret.1"
DATABASES = (0, 1, 2, 3, 5)
REDISES = {
    "that allows all": [],
    "that renamed FLUSHDB": ["--rename-command", "FLUSHDB", ""],
    "that forbids FLUSHDB and KEYS": [
        "--user",
        "default",
        "on",
        f">{PASSWORD}",
        "~*",
        "+@all",
        "-flushdb",
        "-keys",
    ],
    "that forbids to remove": [
        "--user",
        "default",
        "on",
        f">{PASSWORD}",
        "~*",
        "+@all",
        "-flushdb",
        "-unlink",
    ],
}


@contextmanager
def running_redis(options: list[str], directory: Path) -> Iterator[int]:
    """A Redis with a key in each of Harbor's databases; gives its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    password = [] if "--user" in options else ["--requirepass", PASSWORD]
    argv = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    process = subprocess.Popen([*argv, *password, *options], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        while "eady to accept" not in (line := process.stdout.readline()):
            assert line, "Redis did not start"
        with (
            socket.create_connection(("127.0.0.1", port)) as connection,
            connection.makefile("rwb") as stream,
        ):
            ask(stream, "AUTH", PASSWORD)
            for number in DATABASES:
                ask(stream, "SELECT", str(number))
                for key in range(2500):
                    ask(stream, "SET", f"key {key}", "x")
        yield port
    finally:
        process.kill()
        process.wait()


def keys(port: int) -> int:
    found = 0
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rwb") as stream:
        ask(stream, "AUTH", PASSWORD)
        for number in DATABASES:
            ask(stream, "SELECT", str(number))
            found += int(ask(stream, "DBSIZE"))
    return found


def site_with(directory: Path, port: int) -> HarborSite:
    on_disk = correct_site(directory)
    site = read_site_file(on_disk.write(), now=NOW)
    return site.model_copy(
        update={"redis": site.redis.model_copy(update={"host": "127.0.0.1", "port": port})}
    )


@pytest.mark.parametrize("name", [name for name in REDISES if name != "that forbids to remove"])
def test_a_redis_can_be_emptied_and_asking_it_first_changes_nothing(name: str, tmp_path: Path) -> None:
    with running_redis(REDISES[name], tmp_path) as port:
        site = site_with(tmp_path, port)
        assert not ask_redis(site, local_host()).changed
        assert keys(port) == 2500 * len(DATABASES)
        assert empty_caches(site, local_host(), of="a backup").changed
        assert keys(port) == 0


def test_a_redis_that_forbids_it_is_found_out_before_the_first_change(tmp_path: Path) -> None:
    with running_redis(REDISES["that forbids to remove"], tmp_path) as port:
        with pytest.raises(RedisRefused, match="unlink"):
            ask_redis(site_with(tmp_path, port), local_host())
        assert keys(port) == 2500 * len(DATABASES)


def test_a_wrong_password_is_found_out_before_the_first_change_and_is_not_shown(tmp_path: Path) -> None:
    with running_redis([], tmp_path) as port:
        site = site_with(tmp_path, port)
        wrong = site.redis.model_copy(update={"password": type(site.redis.password)("another-password")})
        with pytest.raises(RedisRefused) as refused:
            ask_redis(site.model_copy(update={"redis": wrong}), local_host())
    assert "another-password" not in str(refused.value)
