"""Run programs of this machine for the lab, and show how long the long ones take."""

import fcntl
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tasks.errors import HarborHaError


class LabError(HarborHaError):
    """The lab cannot do what was asked."""


def run(
    argv: Sequence[str],
    *,
    stdin: str | bytes = b"",
    timeout: float = 60.0,
    check: bool = True,
    log: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program and return what it wrote.

    Args:
        argv: program and arguments.
        stdin: what it reads.
        timeout: seconds until it is killed.
        check: raise when the exit status is not 0.
        log: a file that receives both output streams instead of the result; it is appended to.

    Raises:
        LabError: the program is missing, failed or took too long.
    """
    data = stdin.encode() if isinstance(stdin, str) else stdin
    try:
        if log is None:
            done = subprocess.run(argv, input=data, capture_output=True, timeout=timeout, check=False)
            stdout, stderr = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        else:
            with log.open("ab") as sink:
                done = subprocess.run(
                    argv, input=data, stdout=sink, stderr=sink, timeout=timeout, check=False
                )
            stdout, stderr = "", tail(log) if done.returncode else ""
    except FileNotFoundError as error:
        raise LabError(f"`{argv[0]}` is not installed.", where="this machine") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(
            f"`{shlex.join(argv)}` did not end within {timeout:.0f} s.", where="this machine"
        ) from error
    if check and done.returncode:
        raise LabError(
            f"`{shlex.join(argv)}` ended with status {done.returncode}: {stderr.strip() or stdout.strip()}",
            where="this machine",
            remedy=f"The whole output is in {log}." if log else "",
        )
    return subprocess.CompletedProcess(list(argv), done.returncode, stdout, stderr)


def docker(*arguments: str, stdin: str | bytes = b"", timeout: float = 60.0, check: bool = True) -> str:
    """Run the Docker client and return its standard output.

    Raises:
        LabError: it failed or took longer than `timeout` seconds.
    """
    return run(["docker", *arguments], stdin=stdin, timeout=timeout, check=check).stdout


def in_parallel(work: Callable[[str], None], names: Iterable[str]) -> None:
    """Do the same for several machines at once; the first failure is raised when all have ended."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(work, names))


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """Hold a lock among the processes of this machine; it ends with the process that holds it."""
    file.parent.mkdir(exist_ok=True)
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log, for an error message."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print what is being done and, when it is done, how many seconds it took.

    A step of more than ten seconds reports that it is alive: a silent minute looks like a hang.
    """
    started = time.monotonic()
    ended = threading.Event()

    def report_life() -> None:
        while not ended.wait(10.0):
            _say(f"    … {title}: {time.monotonic() - started:.0f} s")

    reporter = threading.Thread(target=report_life, daemon=True)
    reporter.start()
    try:
        yield
    except BaseException:
        _say(f"  failed {title}  {time.monotonic() - started:.1f} s")
        raise
    else:
        _say(f"  {title}  {time.monotonic() - started:.1f} s")
    finally:
        ended.set()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
