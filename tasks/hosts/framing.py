"""Which part of what comes back from a node is the answer, and which was there before or after it.

sshd lets a user's shell run our command, and bash reads its start-up file for that: an `echo hi` in root's .bashrc
came first, the answer was no JSON any more, and a sound node was "not reachable" in every look.
"""

import json
import re
import secrets
import shlex
from dataclasses import dataclass
from typing import Any

from tasks.errors import HarborHaError

# What comes before our first line is somebody's greeting; nobody's is longer.
MAX_NOISE = 1 << 20
# Runs the program and says where its output ends; its status is the program's.
_BRACKET = 'python3 -c "$1"; s=$?; printf "\\n%s\\n" "$2"; exit $s'


class AnswerUnframed(HarborHaError):
    """A program on a node ended well, and what came back is not its answer."""


@dataclass(frozen=True)
class Frame:
    """The lines around one answer; drawn anew for each, so that nothing on a node can have them by chance.

    Attributes:
        begin: printed by the shell before it becomes our command.
        end: printed after a program's output.
    """

    begin: str
    end: str

    @classmethod
    def draw(cls) -> "Frame":
        """Draw the lines for one command."""
        token = secrets.token_hex(8)
        return cls(f"harbor-ha-begin-{token}", f"harbor-ha-end-{token}")

    def shell(self, command: list[str]) -> str:
        """Write the line for the user's shell: say where the output begins, and become the command.

        PostgreSQL's programs complain about a working directory that their user cannot enter.
        """
        return f"cd / && printf '\\n%s\\n' {self.begin} && exec {shlex.join(command)}"

    def program(self, source: str) -> list[str]:
        """Give the command that runs a Python program and prints the last line behind its output."""
        return ["sh", "-c", _BRACKET, "sh", source, self.end]

    def cut(self, output: bytes) -> tuple[bytes, bytes]:
        """Split what came back into noise and output; without our line nothing of ours was run."""
        line = f"\n{self.begin}\n".encode()
        noise, found, rest = output.partition(line)
        return (noise, rest) if found else (b"", output)

    def answer(self, output: str, where: str) -> tuple[Any, str]:
        """Read a program's JSON answer.

        Returns:
            the answer, and what was printed behind it.

        Raises:
            AnswerUnframed: it is not whole, or something wrote into it.
        """
        text, found, after = output.rpartition(f"\n{self.end}\n")
        try:
            if not found:
                raise ValueError("its last line is missing")
            return json.loads(text), after
        except (ValueError, RecursionError) as error:
            # The text itself is not passed on: it is not known whose it is, and what it holds.
            raise AnswerUnframed(
                f"A program's answer cannot be read ({type(error).__name__}, {len(output)} characters).",
                where=where,
                meaning="Something else writes to its output; whether it had an effect, the next look tells.",
                remedy="Run a command there over SSH and see what is printed that is not its own: "
                "~/.bashrc, ~/.profile, /etc/bash.bashrc of the login user.",
            ) from error


def describe_noise(before: bytes | str, after: bytes | str = b"") -> str:
    """Say how much was printed that is not ours, and nothing of what it says; empty when there was none."""
    sizes = [len(text.strip()) for text in (before, after)]
    places = [place for place, size in zip(("before", "after"), sizes, strict=True) if size]
    if not places:
        return ""
    return f"its login prints {sum(sizes)} characters {' and '.join(places)} every command's output"


def program_name(argv: tuple[str, ...] | list[str]) -> list[str]:
    """Show a bracketed program as the call that it stands for."""
    if list(argv[:3]) == ["sh", "-c", _BRACKET]:
        return ["python3", "-c", argv[4]]
    return list(argv)


def is_line(line: bytes, text: str) -> bool:
    """Whether a line that was read is one of ours."""
    return re.fullmatch(rb"\s*" + re.escape(text.encode()) + rb"\s*", line) is not None
