"""The benchmarks of the lab: where they cannot run a row says why, and what was measured before an end is kept."""

import subprocess
from pathlib import Path

import pytest

from benchmarks import guide, lab_site, overhead
from benchmarks.figures import Figure, table
from benchmarks.lab_site import or_why, repeat, stage_of
from benchmarks.overhead import Counts


def test_without_a_docker_client_a_row_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(lab_site.os, "geteuid", lambda: 0)
    told = or_why(lambda: [stage_of("nowhere").name])
    assert told == ["cannot run: `docker` is not installed; `make demo` installs it"]


def test_with_an_engine_that_does_not_answer_a_row_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tmp_path / "docker"
    client.write_text("#!/bin/sh\nexit 1\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(lab_site.os, "geteuid", lambda: 0)
    assert or_why(lambda: [stage_of("nowhere").name]) == ["cannot run: the Docker engine does not answer"]


def test_without_root_a_row_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab_site.os, "geteuid", lambda: 1000)
    assert or_why(lambda: [stage_of("nowhere").name]) == ["cannot run: the lab needs root"]


def test_what_was_measured_before_a_round_failed_is_kept() -> None:
    figure = Figure("to the first push", 7.0)

    def once() -> None:
        assert not figure.seconds, "no push after it"
        figure.add(5.0)

    pace, stopped = repeat(3, once)
    assert stopped == "stopped in round 2 of 3: no push after it"
    assert pace.count(".") == 2, "not one figure for each round that was begun"
    assert "5.0 s" in table([figure])[1]


def test_remote_commands_at_the_same_time_count_once_and_end_with_the_flow() -> None:
    counts = Counts(wall_s=10.0, remote=[(1.0, 3.0), (2.0, 4.0), (9.0, 12.0)])
    assert counts.own_s == pytest.approx(6.0)


@pytest.mark.parametrize(
    "script",
    [
        guide._PROMOTE,
        guide._POINT,
        guide._PREPARE,
        guide._DOWN,
        guide._UP,
        guide._WIPE,
        guide._COPY,
        guide._START,
    ],
)
def test_what_is_typed_by_hand_is_complete_and_reads_as_shell(script: str) -> None:
    words = ("bin", "data", "unit", "port", "passfile", "user", "harbor", "old", "new")
    text = script.format(**dict.fromkeys(words, "x"))
    assert subprocess.run(["bash", "-n", "-c", text], capture_output=True, text=True).stderr == ""


def test_requests_to_prefect_are_counted_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    monkeypatch.setattr(
        httpx.Client, "send", lambda self, request, **kwargs: httpx.Response(200, request=request)
    )
    monkeypatch.setattr(httpx.AsyncClient, "send", httpx.AsyncClient.send)
    seen: list[int] = []
    overhead._note_calls(lambda: seen.append(1))
    with httpx.Client() as client:
        client.get("http://127.0.0.1:4200/api/health")
        client.get("http://127.0.0.1:9999/metrics")
    assert seen == [1]
