"""Runs on a node before anything is changed: what bootstrap needs to know. Read-only."""

import glob
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from typing import Any, Dict, List, Optional

from tasks.on_node.bundled_core import ASK_CORE, CORE_FILE, uses_bundled
from tasks.on_node.package_states import lacking
from tasks.on_node.pg_cluster import creation_open, data_elsewhere
from tasks.on_node.pg_control import control_text


def output(argv: List[str], limit: float = 10) -> str:
    """Return what a program prints; empty when it cannot be run or is late."""
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=limit)
        return done.stdout.decode("utf-8", "replace")
    except (OSError, subprocess.TimeoutExpired):
        return ""


def text(path: str) -> Optional[str]:
    """Return a file's text; None when there is none."""
    try:
        with open(path, errors="replace") as source:
            return source.read()
    except OSError:
        return None


def operating_system() -> Dict[str, str]:
    """Return ID and VERSION_ID of os-release."""
    pairs = (line.partition("=") for line in (text("/etc/os-release") or "").splitlines())
    found = {key: value.strip('"') for key, _, value in pairs}
    return {"id": found.get("ID", ""), "version": found.get("VERSION_ID", "")}


def free_bytes(path: str) -> int:
    """Return the free space where a path is, or will be once it is made."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return shutil.disk_usage(path).free


def listeners(ports: List[int]) -> Dict[str, str]:
    """Return the program that listens on each of the ports."""
    found = {}
    for line in output(["ss", "-ltnpH"]).splitlines():
        fields = line.split()
        port = fields[3].rpartition(":")[2]
        if port.isdigit() and int(port) in ports:
            program = re.search(r'\(\("([^"]+)"', line)
            found[port] = program.group(1) if program else "an unknown program"
    return found


def mounted(path: str) -> Optional[str]:
    """Return the file system type mounted exactly there; a bind mount counts, a plain directory does not."""
    for line in (text("/proc/self/mountinfo") or "").splitlines():
        fields = line.split()
        if fields[4] == path:
            return fields[fields.index("-") + 1]
    return None


def resolves(names: List[str]) -> Dict[str, List[str]]:
    """Return the addresses of names, as this node sees them."""
    found = {}
    for name in names:
        try:
            found[name] = sorted({str(entry[4][0]) for entry in socket.getaddrinfo(name, None)})
        except OSError:
            found[name] = []
    return found


def redis(server: Dict[str, Any]) -> str:
    """Log in to Redis and ping it; return `ok` or what it said."""
    try:
        with socket.create_connection((server["host"], server["port"]), timeout=5) as connection:
            for words in (["AUTH", server["password"]], ["PING"]):
                parts = ["*%d\r\n" % len(words)] + ["$%d\r\n%s\r\n" % (len(word), word) for word in words]
                connection.sendall("".join(parts).encode())
                answer = connection.recv(200).decode("utf-8", "replace").strip()
                if answer not in ("+OK", "+PONG"):
                    return answer.lstrip("-")
            return "ok"
    except OSError as error:
        return str(error)


def connects(targets: List[List[Any]]) -> Dict[str, str]:
    """Try TCP connections; return `ok` or the error by `host:port`."""
    found = {}
    for host, port in targets:
        try:
            socket.create_connection((host, port), timeout=5).close()
            found["%s:%d" % (host, port)] = "ok"
        except OSError as error:
            found["%s:%d" % (host, port)] = str(error)
    return found


def database(p: Dict[str, Any]) -> Dict[str, Any]:
    """Return what the data directory holds and what we recorded about it."""
    data = p["data"]
    record = json.loads(text(p["record"]) or "null")
    found = {
        "occupied": os.path.isdir(data) and bool(os.listdir(data)),
        "record_sysid": record and record["system_identifier"],
        "record_site": record and record["site"],
        "standby": os.path.exists(data + "/standby.signal"),
        "sysid": None,
        "mount_points": [path for path in p["renamed"] if os.path.ismount(path)],
        "cluster_data": data_elsewhere(p["conf"], data),
    }
    if os.path.exists(data + "/global/pg_control"):
        try:
            match = re.search(r"system identifier:\s*(\d+)", control_text(p["bin"], data, 10))
        except OSError:
            match = None
        found["sysid"] = match.group(1) if match else "unreadable"
    known = None if found["sysid"] == "unreadable" else found["sysid"]
    found["creating"] = creation_open(
        text(p["state_dir"] + "/creating.json"), data, found["record_sysid"], known
    )
    return found


def operation(state_dir: str) -> Optional[Dict[str, str]]:
    """Return kind, id and phase of the last operation on the site that this node knows of."""
    content = text(state_dir + "/operation.json")
    if content is None:
        return None
    try:
        record = json.loads(content)
        return {key: str(record[key]) for key in ("kind", "op_id", "phase")}
    except (ValueError, KeyError, TypeError):
        return {"kind": "an operation", "op_id": "unreadable", "phase": "unknown"}


def unfinished(mark: str) -> List[str]:
    """Return the commands that a flow began here and that still run, this program left out.

    A flow that is killed leaves its command running: sshd does not end it with the connection.
    """
    mine, own = ancestors(), "%s=%s" % (mark, os.environ.get(mark, ""))
    found = []
    for number in [name for name in os.listdir("/proc") if name.isdigit() and int(name) not in mine]:
        environment = (text("/proc/%s/environ" % number) or "").split("\0")
        marked = own not in environment and any(entry.startswith(mark + "=") for entry in environment)
        words = (text("/proc/%s/cmdline" % number) or "").split("\0")
        # Every command runs under `timeout`: one of them a command, and its children are left out.
        if marked and os.path.basename(words[0]) == "timeout":
            command = " ".join(words[3:]).strip()
            found.append(re.sub(r'^python3 -c "*', "", command).splitlines()[0][:120])
    return found


def ancestors() -> List[int]:
    """Return the process ids of this program and of those that started it."""
    chain = [os.getpid()]
    while chain[-1] > 1:
        status = text("/proc/%d/stat" % chain[-1])
        if status is None:
            break
        chain.append(int(status.rpartition(")")[2].split()[1]))
    return chain


def bundled_database(directory: str, record: str, install_dir: str) -> Optional[str]:
    """Return `running` or `stopped` for a database of Harbor's own that was not taken over; else None.

    The note that it was counts once core has left it. Until then the old Harbor comes back with the engine's next
    start, and what is pushed to it is in no copy: a run that was killed after the note was called a success.
    """
    inside = [directory] + glob.glob(directory + "/*")
    if not any(os.path.exists(path + "/PG_VERSION") for path in inside):
        return None
    state = output(["docker", "inspect", "--format", "{{.State.Running}}", "harbor-db"]).strip()
    if os.path.exists(record):
        core = output(list(ASK_CORE)) or text(install_dir + CORE_FILE) or ""
        # Without its container it has taken nothing since; compose removes it before it makes the new core.
        if not state or not uses_bundled(core):
            return None
    return "running" if state == "true" else "stopped"


def images_beside(registry: str, nas: str) -> bool:
    """Whether the registry's directory holds images that are not those on the NAS."""
    if not os.path.isdir(registry) or not os.listdir(registry):
        return False
    return not (os.path.isdir(nas + "/registry") and os.path.samefile(registry, nas + "/registry"))


def recorded(path: str, key: str) -> Optional[str]:
    """Return one value of a JSON record of ours; None when there is none."""
    try:
        value = json.loads(text(path) or "{}").get(key)
        return None if value is None else str(value)
    except (ValueError, AttributeError):
        return None


def fingerprint(path: str) -> Optional[str]:
    """Return a short digest of a secret file; never the secret."""
    content = text(path)
    return None if content is None else hashlib.sha256(content.encode()).hexdigest()[:16]


def look(p: Dict[str, Any]) -> Dict[str, Any]:
    """Collect everything."""
    systemd = re.search(r"systemd (\d+)", output(["systemctl", "--version"]))
    memory = re.search(r"MemTotal:\s+(\d+) kB", text("/proc/meminfo") or "")
    return {
        "clock": time.time(),
        "os": operating_system(),
        "systemd": int(systemd.group(1)) if systemd else 0,
        "memory_bytes": int(memory.group(1)) * 1024 if memory else 0,
        "free_bytes": {path: free_bytes(path) for path in p["paths"]},
        "listeners": listeners(p["ports"]),
        "harbor_installed": os.path.exists(p["install_dir"] + "/docker-compose.yml"),
        "nas_mounted": mounted(p["nas"]),
        "resolves": resolves(p["names"]),
        "redis": redis(p["redis"]),
        "connects": connects(p["connects"]),
        "database": database(p["database"]) if p["database"] else None,
        "secretkey": fingerprint(p["secretkey"]),
        "lacking": lacking(p["packages"]),
        "harbor_sha256": recorded(p["state_dir"] + "/harbor_installed.json", "sha256"),
        "bundled_database": bundled_database(
            p["data_volume"] + "/database", p["state_dir"] + "/harbor_migrated.json", p["install_dir"]
        ),
        "images_beside": images_beside(p["data_volume"] + "/registry", p["nas"]),
        "wal_repository": os.path.exists(p["wal_repository"]),
        "daemon_json": text("/etc/docker/daemon.json"),
        "operation": operation(p["state_dir"]),
        "unfinished": unfinished(p["mark"]),
        "tools": {
            name: shutil.which(name) is not None for name in ("apt-get", "systemctl", "ss", "iptables")
        },
    }


if __name__ == "__main__":
    print(json.dumps(look(json.load(sys.stdin))))
