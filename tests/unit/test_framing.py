"""What a login prints besides our answers is cut off, and told."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.errors import RemoteCommandFailed
from tasks.hosts.connection import Host, connect
from tasks.hosts.framing import AnswerUnframed, Frame, describe_noise
from tests.unit.local_sshd import running_sshd

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="commands are run as the login user root")

ECHO = "import json, sys; json.dump(json.load(sys.stdin), sys.stdout)"


@pytest.fixture
def bashrc(tmp_path: Path) -> Path:
    """What bash reads before each command that comes over SSH."""
    return tmp_path / "bashrc"


@pytest.fixture
def host(bashrc: Path) -> Iterator[Host]:
    bashrc.write_text("")
    with running_sshd({"BASH_ENV": str(bashrc)}) as node:
        host = connect(node)
        yield host
        host.close()


def test_a_quiet_login_is_no_problem(host: Host) -> None:
    assert host.python(ECHO, {"a": 1}) == {"a": 1}
    assert host.run(["printf", "%s", "ab"]).stdout == "ab"
    assert host.noise == ""


@pytest.mark.parametrize(
    "noise", ["echo hi", "printf hi", 'echo \'{"not": "ours"}\'', "printf 'a\\n\\nb\\n'"]
)
def test_what_a_start_up_file_prints_is_not_taken_for_an_answer(host: Host, bashrc: Path, noise: str) -> None:
    bashrc.write_text(noise + "\n")
    assert host.python(ECHO, {"a": 1}) == {"a": 1}
    assert "its login prints" in host.noise
    assert "hi" not in host.noise, "what it prints may hold a password"


def test_a_command_and_a_stream_have_their_own_output_only(host: Host, bashrc: Path) -> None:
    """A dump with a greeting in front of it is no dump, and `systemctl is-active` with one is not `active`."""
    bashrc.write_text("echo Welcome\n")
    assert host.run(["printf", "%s", "active"]).stdout == "active"
    with host.stream(["cat"], timeout=10) as process:
        process.stdin.write(b"\x00\nPGDMP\n")
        process.close_stdin()
        assert process.stdout.read() == b"\x00\nPGDMP\n"
        process.wait()
    assert "before" in host.noise


def test_what_is_printed_after_the_answer_is_cut_off_too(host: Host, bashrc: Path) -> None:
    bashrc.write_text("(sleep 0.4; echo late) &\n")
    slow = "import json, sys, time; json.dump(7, sys.stdout); sys.stdout.flush()"
    assert host.python(slow) == 7
    assert "after" in host.noise


def test_an_answer_into_which_something_was_written_is_an_error_of_ours_without_its_text(host: Host) -> None:
    with pytest.raises(AnswerUnframed, match="cannot be read") as caught:
        host.python("print('{\"a\": secret')")
    assert "secret" not in str(caught.value)


def test_a_program_that_fails_is_named_as_before(host: Host) -> None:
    with pytest.raises(RemoteCommandFailed, match=r"`python3 -c .*ended with status 3") as caught:
        host.python("# its_name\nimport sys\nsys.exit(3)\n" + "#" * 300)
    assert "harbor-ha-end" not in str(caught.value)
    assert "its_name" in str(caught.value)


def test_a_program_that_ends_without_its_interpreter_answers_all_the_same(host: Host) -> None:
    """The probe ends by os._exit, so that threads that hang do not keep it."""
    assert host.python("import os, sys; sys.stdout.write('[1]'); sys.stdout.flush(); os._exit(0)") == [1]


def test_the_lines_of_two_answers_differ() -> None:
    assert Frame.draw() != Frame.draw()


def test_an_answer_without_its_last_line_is_not_whole() -> None:
    with pytest.raises(AnswerUnframed):
        Frame.draw().answer("12", "node-a")


def test_blank_lines_are_no_noise() -> None:
    assert describe_noise(b"\n", "\n\n") == ""
