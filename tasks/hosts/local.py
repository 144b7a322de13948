"""Programs on the orchestrator itself, through prefect-shell: a fencing hook, a balancer's commands."""

import shlex
from collections.abc import Mapping, Sequence

from tasks.errors import HarborHaError

_OK = "harbor-ha-exit-status:"


class LocalCommandFailed(HarborHaError):
    """A program on the orchestrator failed or did not end in time."""


def run_local(argv: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None) -> str:
    """Run a program and return what it wrote to both of its streams.

    Args:
        argv: program and arguments, without secrets.
        timeout: seconds; the program is killed after that.
        env: variables for it alone.

    Raises:
        LocalCommandFailed: with its exit status and its output.
    """
    # Imported late: it costs half a second, and a failover that needs no hook must not pay for it.
    from prefect_shell import ShellOperation

    command = shlex.join(["timeout", "--kill-after=2", f"{timeout:.1f}", *argv])
    # prefect-shell drops standard error and reports a failure without saying which, so both go into the result.
    script = f"{command} </dev/null 2>&1 || echo {_OK}$?"
    with ShellOperation(commands=[script], stream_output=False, env=dict(env or {})) as operation:
        process = operation.trigger()
        process.wait_for_completion()
        lines = [str(line) for line in process.fetch_result()]
    if lines and lines[-1].startswith(_OK):
        status = int(lines[-1].removeprefix(_OK))
        said = "\n".join(lines[:-1]).strip() or "nothing"
        late = status in (124, 137)
        reason = f"did not end in {timeout:.0f} s" if late else f"ended with status {status}"
        raise LocalCommandFailed(f"`{shlex.join(argv)}` {reason} and said: {said}", where="orchestrator")
    return "\n".join(lines)
