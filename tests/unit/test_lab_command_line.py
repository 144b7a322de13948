"""The lab's command line: what is named is what is hit."""

import pytest

from lab.__main__ import _parser, main


@pytest.mark.parametrize(
    "arguments",
    [
        ["--name", "other", "fence", "node-a"],
        ["fence", "--name", "other", "node-a"],
        ["fence", "node-a", "--name", "other"],
    ],
)
def test_the_lab_named_before_or_after_the_command_is_the_one_that_is_fenced(arguments: list[str]) -> None:
    options = _parser().parse_args(arguments)
    assert (options.name, options.command, options.node) == ("other", "fence", "node-a")


def test_without_a_name_the_demo_is_meant() -> None:
    options = _parser().parse_args(["status"])
    assert (options.name, options.subnet) == ("demo", None)


def test_a_command_for_a_machine_keeps_its_own_options() -> None:
    options = _parser().parse_args(["--name", "other", "exec", "node-a", "--", "ls", "--name", "x"])
    assert options.name == "other"
    assert [part for part in options.argv if part != "--"] == ["ls", "--name", "x"]


def test_a_harbor_that_is_none_is_refused_before_anything_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--name", "never-made", "up", "--harbor", "1.10"]) == 1
    assert "from 2.3 to 2.15, not '1.10'" in capsys.readouterr().err
