"""Somebody who sits at a program on a machine of the lab, reads what it asks, and types an answer."""

import os
import select
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping

from lab.site_lab import Lab

# More often the same question comes only when its answer was not taken: of each of two nodes it comes once.
_OFTEN = 2

# Given what was on the screen since the last answer, returns the next one.
Answer = str | Callable[[str], str]


def talk(
    lab: Lab, machine: str, script: str, answers: Mapping[str, Answer], *, limit_s: float = 120.0
) -> str:
    """Run a script on a machine and answer its questions; return all that was on the screen.

    Args:
        script: for bash, as root.
        answers: by a part of the line in which the question stands.
        limit_s: how long it may say nothing.

    Raises:
        AssertionError: it asks what nobody has an answer to, says nothing for too long, or ends with another status
            than 0.
    """
    argv = ["docker", "exec", "-i", lab.topology.container(machine), "bash", "-c", f"exec 2>&1; {script}"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        try:
            screen = _answer_all(program, answers, limit_s)
            assert program.wait(30) == 0, f"status {program.returncode}: {screen[-3000:]}"
        finally:
            program.kill()
    return screen


def _answer_all(program: "subprocess.Popen[bytes]", answers: Mapping[str, Answer], limit_s: float) -> str:
    assert program.stdin is not None
    assert program.stdout is not None
    screen, read, asked = b"", 0, Counter[str]()
    quiet_since = time.monotonic()
    while True:
        ready, _, _ = select.select([program.stdout], [], [], 1.0)
        block = os.read(program.stdout.fileno(), 65536) if ready else b""
        if ready and not block:
            return screen.decode(errors="replace")
        if block:
            screen, quiet_since = screen + block, time.monotonic()
        unread = screen[read:].decode(errors="replace")
        question = unread.rpartition("\n")[2]
        part = next((part for part in answers if part in question), None)
        if part is not None and question.endswith(": "):
            found, asked[part] = answers[part], asked[part] + 1
            assert asked[part] <= _OFTEN, f"it does not take the answer: {_end_of(screen)}"
            program.stdin.write(f"{found if isinstance(found, str) else found(unread)}\n".encode())
            program.stdin.flush()
            # What is typed has no echo here, so the next line stands behind the question.
            screen += b"\n"
            read = len(screen)
            quiet_since = time.monotonic()
        assert time.monotonic() - quiet_since < limit_s, f"nobody answers: {_end_of(screen)}"


def _end_of(screen: bytes) -> str:
    return screen.decode(errors="replace")[-3000:]
