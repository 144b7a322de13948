"""The only place where the real code meets the simulated world: what is replaced, and by what.

Everything is replaced by identity: wherever a module of the flows or tasks holds the original (the module `time`, the
class `Protocol`, the function `text_of`, …), it holds the stand-in while the seams are closed. So a module that
begins to use one of them needs no change here.
"""

import contextlib
import dataclasses
import fcntl
import glob
import json
import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import flows.check
import flows.failover
import flows.pause
import flows.rejoin
import flows.switchover  # noqa: F401 - all flows are loaded before they are patched
from flows.machinery import beside, protocol, report
from tasks.balancer import balancer
from tasks.guard.on_node import boot_guard, guard_look, guard_note, guard_watch
from tasks.harbor import api
from tasks.hosts import connection, local
from tasks.observation import look, witnesses
from tasks.on_node import files as node_files
from tasks.on_node import pg_disk, pg_log, pg_run, shared_copy
from tasks.operation import holder
from tasks.postgres import sql
from tasks.postgres.on_node import (
    base_backup,
    pg_archive,
    pg_fence,
    pg_lost_commits,
    pg_promote,
    pg_rewind,
    pg_wal,
)
from tests.simulation.steps import SimProtocol, first_of
from tests.simulation.world import copies, files, looks, processes, remote, trees
from tests.simulation.world.harbor import SimHarborApi
from tests.simulation.world.here import SIM_TIME, machine, world
from tests.simulation.world.links import NoNetwork
from tests.simulation.world.texts import SIM_JSON, asdict

_ROOTS = ("flows", "tasks")
GUARD_VERSION = looks.GUARD_VERSION


@dataclass
class Report:
    """What a run published.

    Attributes:
        run: the steps, with their outcomes.
        headline, sections: what the operator reads first.
    """

    run: Any
    headline: str
    sections: dict[str, list[str]] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """All that it says in words."""
        return "\n".join([self.headline, *(line for lines in self.sections.values() for line in lines)])


def publish(
    run: Any,
    headline: str,
    sections: dict[str, list[str]] | None = None,
    *,
    state: str = "",
    picture: Callable[[], str] | None = None,
) -> dict[str, Any]:
    """Stand for `flows.machinery.report.publish`."""
    told = Report(run, headline, {name: list(lines) for name, lines in (sections or {}).items()})
    world().on_report(told)
    return {"headline": headline, "report": told.text}


class SerialPool:
    """Stands for `ThreadPoolExecutor`: one after the other."""

    def __init__(self, *_: Any) -> None:
        pass

    def __enter__(self) -> "SerialPool":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, act: Callable[..., Any], *values: Any) -> list[Any]:
        return [act(*given) for given in zip(*values, strict=True)]

    def submit(self, act: Callable[..., Any], *given: Any, **named: Any) -> Any:
        value = act(*given, **named)
        return SimpleNamespace(result=lambda: value, done=lambda: True)


class SimSecrets:
    """Stands for `secrets` and `uuid`: drawn from the history's number."""

    @staticmethod
    def token_hex(size: int) -> str:
        return f"{world().rng.getrandbits(8 * size):0{2 * size}x}"

    @staticmethod
    def uuid4() -> str:
        return SimSecrets.token_hex(16)


class SimPwd:
    """Stands for `pwd` in the copy program."""

    @staticmethod
    def getpwnam(name: str) -> Any:
        return SimpleNamespace(pw_uid=1, pw_gid=1)


def this_process() -> holder.Holder:
    """Stand for `this_process`: the running orchestrator's process."""
    place, actor = machine(), world().engine.current
    assert actor is not None
    pid = getattr(place, "pids", {}).get(id(actor), 1)
    host = getattr(place, "host", place.name)
    return holder.Holder(host, pid, f"s{pid}", place.boot_id(), "1", getattr(place, "machine_id", place.name))


def start_of(pid: int) -> str:
    """Stand for `_start_of`: whether a process of the running actor's machine is alive."""
    running = getattr(machine(), "running", {})
    actor = running.get(pid)
    return f"s{pid}" if actor is not None and not actor.done else ""


def guard_says(*words: Any, **_: Any) -> None:
    """Stand for `print` in the guards."""
    world().note(f"{machine().name}: guard: {' '.join(map(str, words))}")


def as_postgres(argv: list[str]) -> list[str]:
    """Stand for `pg_run.as_postgres`."""
    return argv


def ids_of(name: str) -> tuple[int, int]:
    """Stand for `pg_disk.ids_of`."""
    return 1, 1


def log_size(path: str) -> int:
    """Stand for `pg_log.log_size`."""
    return 0


def version_of(path: str) -> str:
    """Stand for `guard_watch.version_of`."""
    return GUARD_VERSION


def listens(p: dict[str, Any]) -> bool:
    """Stand for `pg_fence.listens`."""
    return bool(processes.servers_in(p["data"]))


# Of `tasks.on_node.files`.
_TREES = (
    "make_directories",
    "new_directory",
    "write_file",
    "copy_file",
    "move",
    "remove_tree",
    "lock_file",
)


# By what is replaced, wherever a module holds it.
def replacements() -> dict[int, Any]:
    """List every original with what stands for it."""
    pairs: list[tuple[Any, Any]] = [
        (time, SIM_TIME),
        (json, SIM_JSON),
        (dataclasses.asdict, asdict),
        (ThreadPoolExecutor, SerialPool),
        (secrets, SimSecrets),
        (uuid, SimSecrets),
        (protocol.Protocol, SimProtocol),
        (beside.first_of, first_of),
        (report.publish, publish),
        (look.look, looks.look),
        (look.look_with_witnesses, looks.look_with_witnesses),
        (witnesses.ask_witnesses, looks.ask_witnesses),
        (connection.connect, remote.sim_connect),
        (sql.execute, remote.execute),
        (balancer.balancer_of, remote.balancer_of),
        (api.HarborApi, SimHarborApi),
        (socket, NoNetwork()),
        (local.run_local, remote.run_local),
        (holder.this_process, this_process),
        (holder._start_of, start_of),
        (pg_disk.text_of, files.text_of),
        (pg_disk.text_to_change, trees.text_to_change),
        (pg_disk.ids_of, ids_of),
        *[(getattr(node_files, name), getattr(trees, name)) for name in _TREES],
        (pg_disk.write_durably, files.write_durably),
        (pg_disk.remove_durably, files.remove_durably),
        (pg_disk.control, processes.control),
        (pg_disk.servers_in, processes.servers_in),
        (pg_disk.signal_all, processes.signal_all),
        (pg_disk.unknown_servers, processes.unknown_servers),
        (pg_log.log_size, log_size),
        (shared_copy.read_shared, files.read_shared),
        (shared_copy.keep_shared, files.keep_shared),
        (shared_copy.drop_shared, files.drop_shared),
        (guard_note.write_volatile, files.write_volatile),
        (guard_look.version_of, version_of),
        (threading, processes.SimThreading),
        (pg_run.systemctl, processes.systemctl),
        (pg_run.start, processes.start),
        (pg_run.mask, processes.mask),
        (pg_run.unmask, processes.unmask),
        (pg_run.psql, processes.psql),
        (pg_run.run, processes.run),
        (pg_run.as_postgres, as_postgres),
        (pg_promote.session, processes.session),
        (pg_promote.opens, processes.opens),
        (pg_fence.listens, listens),
        (guard_look.reaches, processes.reaches),
        (pg_archive.only_archived, copies.only_archived),
        (pg_archive.archive_has_line, copies.archive_has_line),
        (pg_archive.set_archive_aside, copies.set_archive_aside),
        (pg_wal.segments_from, copies.segments_from),
        (pg_wal.first_gap, copies.first_gap),
        (pg_lost_commits.collect, copies.collect),
        (pg_rewind.keep_evidence, copies.keep_evidence),
        (pg_rewind.recover, copies.recover),
        (pg_rewind.run_pg_rewind, copies.run_pg_rewind),
        (base_backup.as_postgres, copies.as_postgres),
    ]
    return {id(original): stand_in for original, stand_in in pairs}


# Only in what runs on a node.
def on_node_replacements() -> dict[int, Any]:
    """List the modules of Python that a node's programs use."""
    pairs: list[tuple[Any, Any]] = [
        (os, files.SIM_OS),
        (fcntl, files.SimFcntl),
        (glob, processes.SimGlob),
        (subprocess, processes.SimSubprocess),
        (socket, SimpleNamespace()),
        (shutil, copies.SimShutil),
    ]
    return {id(original): stand_in for original, stand_in in pairs}


_MISSING = object()


@contextlib.contextmanager
def closed() -> Iterator[None]:
    """Have the real code act in the simulated world inside the `with`; its logs are the story's, and go nowhere."""
    undo: list[tuple[ModuleType, str, Any]] = []
    everywhere, nodes = replacements(), on_node_replacements()

    def put(module: ModuleType, name: str, value: Any) -> None:
        undo.append((module, name, module.__dict__.get(name, _MISSING)))
        setattr(module, name, value)

    for path, module in list(sys.modules.items()):
        if path.split(".")[0] not in _ROOTS or module is None:
            continue
        on_node = ".on_node" in path
        table = {**everywhere, **nodes} if on_node else everywhere
        for name, value in list(module.__dict__.items()):
            if id(value) in table and not name.startswith("__"):
                put(module, name, table[id(value)])
        if on_node:
            put(module, "open", files.sim_open)
            if "pwd" in module.__dict__:
                put(module, "pwd", SimPwd)
    for module in (guard_watch, boot_guard):
        put(module, "print", guard_says)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        for module, name, value in reversed(undo):
            if value is _MISSING:
                delattr(module, name)
            else:
                setattr(module, name, value)
