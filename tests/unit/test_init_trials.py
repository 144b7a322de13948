"""What `harbor-ha init` tries before it believes an answer, and how it writes a secret."""

import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from deployments.init import answers, trials
from deployments.init.draft import Draft

pytestmark = pytest.mark.servers

# 127.0.0.1 for the resolver, and not refused as an address that is each machine's own.
A = "0x7f000001"


class TestTrials:
    """Each test has a time limit and says what to do."""

    def test_a_name_service_that_says_nothing_is_not_waited_for(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import threading

        ended = threading.Event()
        monkeypatch.setattr(trials, "LIMIT_S", 0.2)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: ended.wait(30))
        begun = time.monotonic()
        found, problems = trials.addresses_of("harbor.example.com")
        ended.set()
        assert time.monotonic() - begun < 5
        assert not found
        assert "did not answer" in problems[0]

    def test_a_host_name_that_leads_elsewhere_is_told_with_both_addresses(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def resolve(name: str, *_: object) -> list[Any]:
            return [(0, 0, 0, "", ("10.0.0.9", 0))]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        (problem,) = trials.try_name("harbor.example.com", "10.0.0.10")
        assert "leads to 10.0.0.9, and the load balancer is 10.0.0.10" in problem
        assert trials.try_name("harbor.example.com", "10.0.0.9") == []

    def test_a_load_balancer_that_does_not_answer_is_told(self, tmp_path: Path) -> None:
        draft = Draft(tmp_path)
        for key, value in (("harbor.hostname", A), ("balancer.address", A), ("balancer.kind", "haproxy")):
            draft.put(key, value)
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        draft.put("balancer.admin_host", A)
        draft.put("balancer.admin_port", port)
        (problem,) = trials.try_balancer(draft)
        assert str(port) in problem

    def test_what_answers_and_is_no_ssh_server_has_no_host_key(self) -> None:
        from tasks.errors import HostUnreachable
        from tasks.hosts.ssh import read_host_key

        with (
            socket.create_server(("127.0.0.1", 0)) as silent,
            pytest.raises(HostUnreachable, match="No SSH answer"),
        ):
            read_host_key("127.0.0.1", silent.getsockname()[1])


def test_a_secret_file_is_never_open_to_others_not_even_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = os.umask(0)
    try:
        draft = Draft(tmp_path / "site")
        assert draft.write_new("secrets/x", "one")
        assert not draft.write_new("secrets/x", "two"), "what is there stays"
    finally:
        os.umask(old)
    assert (tmp_path / "site" / "secrets" / "x").read_text() == "one"
    assert (tmp_path / "site" / "secrets" / "x").stat().st_mode & 0o777 == 0o600
    for directory in (tmp_path / "site", tmp_path / "site" / "secrets"):
        assert directory.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in (tmp_path / "site" / "secrets").iterdir()] == ["x"]


def test_the_dialogue_and_the_options_answer_the_same_questions() -> None:
    members = {name for name in vars(answers.Answers) if not name.startswith("_")}
    for kind in (answers.Dialogue, answers.Options):
        assert members <= set(dir(kind)) | {"tell"}
