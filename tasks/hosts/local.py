"""Programs on the orchestrator itself, through prefect-shell: a fencing hook, a balancer's commands."""

import os
import shlex
import tempfile
from collections.abc import Mapping, Sequence

from tasks.errors import HarborHaError

_STATUS = "harbor-ha-exit-status:"
_MAX_OUTPUT = 64 << 10
_SHOWN = 500


class LocalCommandFailed(HarborHaError):
    """A program on the orchestrator failed or did not end in time."""


def run_local(argv: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None) -> str:
    """Run a program and return what it wrote to both of its streams, 64 KiB at the most.

    What it starts in the background is not waited for: with a pipe, an `ssh` that stays behind to share its
    connection held a fence command for as long as it lived, whatever the time limit.

    Args:
        argv: program and arguments, without secrets.
        timeout: seconds; the program is killed after that.
        env: variables for it alone.

    Raises:
        LocalCommandFailed: with its exit status and the end of its output.
    """
    with tempfile.TemporaryFile() as output:
        status = _run(argv, f"/proc/{os.getpid()}/fd/{output.fileno()}", timeout, dict(env or {}))
        output.seek(0)
        text = output.read(_MAX_OUTPUT).decode("utf-8", "replace").strip()
    if status == 0:
        return text
    late = status in (124, 137)
    reason = f"did not end in {timeout:.0f} s" if late else f"ended with status {status}"
    said = text[-_SHOWN:] or "nothing"
    raise LocalCommandFailed(f"`{shlex.join(argv)}` {reason} and said: {said}", where="orchestrator")


def _run(argv: Sequence[str], output: str, timeout: float, env: dict[str, str]) -> int:
    """Run a program through prefect-shell with its output in a file; return its exit status."""
    # Imported late: it costs half a second, and a failover that needs no hook must not pay for it.
    from prefect_shell import ShellOperation

    command = shlex.join(["timeout", "--kill-after=2", f"{timeout:.1f}", *argv])
    # prefect-shell reports a failure without saying which, so the status goes into the result.
    script = f"{command} </dev/null >>{output} 2>&1; echo {_STATUS}$?"
    try:
        with ShellOperation(commands=[script], stream_output=False, env=env) as operation:
            process = operation.trigger()
            process.wait_for_completion()
            lines = [str(line) for line in process.fetch_result()]
        return int(lines[-1].removeprefix(_STATUS))
    except Exception as error:
        # Whatever the library stumbles over, a failover has further rungs.
        raise LocalCommandFailed(
            f"`{shlex.join(argv)}` could not be run ({type(error).__name__}).", where="orchestrator"
        ) from error
