"""Run flows in processes of their own, and kill them where a test says.

`python -m lab.faults.run_flow FLOW key=value…` runs one. `python -m lab.faults.run_flow --serve` reads orders from
its input, one JSON object a line, and forks a child for each: the child is an orchestrator's process like any
other, with its own process id and lock, only that nobody waits four seconds for Prefect's import.

An order: `{"flow", "parameters", "out", "accident"}`, or `"call": "module:function"` instead of a flow. The child
writes `<out>.records` (a line a step, as it ends), `<out>.log`, and at its end `<out>`. The accident is SIGKILL:
`{"after": N}` when the N-th step has ended, `{"title": "…", "nth": 1}` when the first of that name has,
`{"within": N, "delay": seconds}` while the N-th step runs, or `within_title` for the first of a name; counted
from 1, looks included. With
`"run": [argv…]` that program is run instead, and the flow goes on when it has ended.
"""

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from deployments.warm import PRELOADED
from flows.machinery.ending import Alarming
from flows.machinery.protocol import Protocol, StepRecord


def flow_of(name: str) -> Any:
    """Import a flow by its name."""
    return getattr(importlib.import_module(f"flows.{name}"), name)


class Journal(list[StepRecord]):
    """The records of a run; each is on disk before the flow goes on, so that a killed run leaves them."""

    def __init__(self, out: str, accident: dict[str, Any]) -> None:
        super().__init__()
        self._file = Path(f"{out}.records").open("a", encoding="utf-8")  # noqa: SIM115
        self._accident = accident

    def append(self, record: StepRecord) -> None:
        super().append(record)
        line = {
            "title": record.title,
            "nodes": record.nodes,
            "begin": round(record.begin_s, 3),
            "seconds": round(record.seconds, 3),
            "changed": record.outcome.changed if record.outcome else None,
            "detail": record.outcome.detail if record.outcome else record.error,
        }
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if self._due(record):
            strike(self._accident)

    def _due(self, record: StepRecord) -> bool:
        if record.title == self._accident.get("title"):
            same = [known for known in self if known.title == record.title]
            return bool(len(same) == self._accident.get("nth", 1))
        return bool(len(self) == self._accident.get("after"))


def strike(accident: dict[str, Any]) -> None:
    """Do what the order says; without anything else, die."""
    if "run" in accident:
        subprocess.run(accident["run"], check=True, timeout=120)
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def watch_records(out: str, accident: dict[str, Any]) -> None:
    """Make every protocol of this process keep its records in a Journal."""
    begin = Protocol.begin.__func__  # type: ignore[attr-defined]
    kept = Protocol._kept
    hit = threading.Event()

    def begin_with_journal(cls: type[Protocol], *args: Any, **kwargs: Any) -> Protocol:
        run: Protocol = begin(cls, *args, **kwargs)
        run.records = Journal(out, accident)
        return run

    def kept_or_struck(self: Protocol, *args: Any) -> Any:
        title = args[0].name if args else ""
        here = len(self.records) + 1 == accident.get("within") or title == accident.get("within_title")
        if here and not hit.is_set():
            hit.set()
            threading.Timer(accident.get("delay", 0.1), strike, (accident,)).start()
        return kept(self, *args)

    Protocol.begin = classmethod(begin_with_journal)  # type: ignore[method-assign,assignment]
    Protocol._kept = kept_or_struck  # type: ignore[method-assign,assignment]


def work_of(order: dict[str, Any]) -> Any:
    """Find what is to be called."""
    if "flow" in order:
        return flow_of(order["flow"])
    module, _, function = order["call"].partition(":")
    return getattr(importlib.import_module(module), function)


def end_with_parent() -> None:
    """Have the kernel end this process with its parent: a load that outlived its test would go on for ever."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def run(order: dict[str, Any]) -> None:
    """Do one order to its end and leave the result."""
    out = order["out"]
    watch_records(out, order.get("accident") or {})
    answer: dict[str, Any] = {"begun": time.time()}
    try:
        answer["result"] = work_of(order)(**order["parameters"])
    except Alarming as found:
        answer["result"] = found.result
    except Exception as error:
        answer["error"] = {"type": type(error).__name__, "text": str(error)}
        answer["error"]["reasons"] = getattr(error, "reasons", [])
    answer["ended"] = time.time()
    partial = Path(f"{out}.partial")
    partial.write_text(json.dumps(answer))
    partial.rename(out)


def serve() -> None:
    """Fork a child for each order until the input ends; from a process like the one that the runner forks from."""
    importlib.import_module(PRELOADED)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            log = os.open(f"{order['out']}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(log, 1)
            os.dup2(log, 2)
            if "call" in order:
                end_with_parent()
            run(order)
            return
        print(pid, flush=True)


def main(argv: list[str]) -> None:
    """Run one flow named on the command line, or serve orders."""
    if argv == ["--serve"]:
        return serve()
    pairs = [word.partition("=") for word in argv[1:]]
    parameters = {key: {"true": True, "false": False}.get(value, value) for key, _, value in pairs}
    out = f"/tmp/{argv[0]}-{os.getpid()}.json"
    run({"flow": argv[0], "parameters": parameters, "out": out})
    print(Path(out).read_text())
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
