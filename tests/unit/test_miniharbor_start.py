"""When the miniature's core answers for the first time, and how old what it says of its health may be."""

import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from lab.harbor.app.health import PERIOD, Checker
from lab.harbor.app.loading import START_S, left_to_load
from tests.unit.live_prefect import free_port
from tests.unit.local_postgres import programs, running_postgres
from tests.unit.local_redis import running_redis

MISSING = programs() is None or shutil.which("redis-server") is None
needs_servers = pytest.mark.skipif(MISSING, reason="no PostgreSQL or no Redis is installed")
ROOT = Path(__file__).parents[2]
# Core as its container runs it, with its files in another directory.
PROGRAM = """import sys; from pathlib import Path; from lab.harbor.app import core
for name in ("KEY_FILE", "PRIVATE_KEY_FILE", "VERSION_FILE"):
    setattr(core, name, Path(sys.argv[1]) / name)
core.main()"""
SCHEMA = "CREATE ROLE harbor LOGIN; CREATE DATABASE registry OWNER harbor;"


def answers(port: int, path: str = "/api/v2.0/ping") -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


class Site:
    """PostgreSQL and Redis for a core, and core's files."""

    def __init__(self, files: Path, redis: int) -> None:
        self.files, self.redis, self.database = files, redis, free_port()
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = (
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        (files / "KEY_FILE").write_text("0123456789abcdef")
        (files / "PRIVATE_KEY_FILE").write_bytes(key.private_bytes(*pem))
        (files / "VERSION_FILE").write_text("v2.13.2")

    def environment(self, port: int) -> dict[str, str]:
        nowhere = ("REGISTRY_URL", "JOBSERVICE_URL", "REGISTRY_CONTROLLER_URL", "PORTAL_URL", "EXT_ENDPOINT")
        words = (
            "CORE_SECRET",
            "JOBSERVICE_SECRET",
            "REGISTRY_CREDENTIAL_USERNAME",
            "REGISTRY_CREDENTIAL_PASSWORD",
        )
        return {
            **dict.fromkeys(nowhere, "http://127.0.0.1:9"),
            **dict.fromkeys(words, "word"),
            "POSTGRESQL_HOST": "127.0.0.1",
            "POSTGRESQL_PORT": str(self.database),
            "POSTGRESQL_USERNAME": "harbor",
            "POSTGRESQL_PASSWORD": "",
            "POSTGRESQL_DATABASE": "registry",
            "HARBOR_ADMIN_PASSWORD": "Harbor12345",
            "_REDIS_URL_CORE": f"redis://:word@127.0.0.1:{self.redis}/0",
            "PORT": str(port),
        }

    @contextmanager
    def core(self) -> Iterator[tuple[subprocess.Popen[bytes], int, float]]:
        """Start a core; its process, its port and the moment of its beginning."""
        port, begin = free_port(), time.monotonic()
        argv = [sys.executable, "-c", PROGRAM, str(self.files)]
        with (self.files / "log").open("wb") as log:
            process = subprocess.Popen(argv, cwd=ROOT, env=self.environment(port), stderr=log)
        try:
            yield process, port, begin
        finally:
            process.kill()
            process.wait()

    def start(self) -> float:
        """Start a core and end it when it answers; the seconds that it took."""
        with self.core() as (process, port, begin):
            return await_answer(process, port) - begin


def await_answer(process: subprocess.Popen[bytes], port: int) -> float:
    """Wait for a core's first answer; the moment of it."""
    deadline = time.monotonic() + 60
    while not answers(port):
        assert process.poll() is None, "core ended"
        assert time.monotonic() < deadline, "core does not answer"
        time.sleep(0.02)
    return time.monotonic()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    files = tmp_path_factory.mktemp("core")
    with running_redis(files, "word") as redis:
        made = Site(files, redis)
        with running_postgres(SCHEMA, port=made.database, listen="127.0.0.1"):
            made.start()  # migrates
            yield made


@pytest.mark.servers
@needs_servers
def test_a_core_answers_no_earlier_than_a_real_one_after_its_process_began(site: Site) -> None:
    assert START_S == (2.6, 3.5)
    # The clock ticks a hundred times a second.
    assert site.start() >= START_S[0] - 0.01


@pytest.mark.servers
@needs_servers
def test_a_core_loads_after_its_database_has_come_and_not_while_it_waits_for_it(site: Site) -> None:
    later = Site(site.files, site.redis)
    with later.core() as (process, port, begin):
        # Longer than the longest start: a core that counted this time as its loading would answer at once.
        while time.monotonic() < begin + START_S[1] + 0.5:
            assert process.poll() is None, "core ended"
            time.sleep(0.05)
        with running_postgres(SCHEMA, port=later.database, listen="127.0.0.1"):
            while "is ready, " not in (later.files / "log").read_text():
                assert process.poll() is None, "core ended"
                assert time.monotonic() < begin + 60, "core does not find its database"
                time.sleep(0.02)
            ready = time.monotonic()
            # Of 2.6 s the interpreter and the migrations have had their part.
            assert await_answer(process, port) - ready > 0.3


def test_the_time_of_loading_is_what_is_left_of_the_start_without_what_was_waited_for() -> None:
    assert left_to_load(3.0, age=1.0, waited=0.0) == 2.0
    assert left_to_load(3.0, age=21.0, waited=20.0) == 2.0
    assert left_to_load(3.0, age=4.0, waited=0.0) == 0.0


def test_an_answer_about_health_is_kept_until_the_next_look() -> None:
    looks, sick = [threading.Event() for _ in range(2)], threading.Event()
    pending = iter(looks)

    def check() -> None:
        next(pending, threading.Event()).set()
        if sick.is_set():
            raise RuntimeError("gone")

    assert PERIOD == 10.0
    period = 1.5
    checker = Checker("database", check, period=period)
    assert looks[0].wait(period / 2), "the first look is at the start"
    while checker.report()["status"] != "healthy":
        time.sleep(0.01)
    sick.set()
    assert checker.report() == {"name": "database", "status": "healthy"}
    assert not looks[1].is_set()
    deadline = time.monotonic() + 20
    while checker.report()["status"] == "healthy" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert looks[1].is_set()
    assert checker.report()["error"] == "gone"
