"""Runs on a node before anything is changed: what bootstrap needs to know. Read-only."""

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
        "creating": os.path.exists(p["state_dir"] + "/creating.json"),
        "standby": os.path.exists(data + "/standby.signal"),
        "sysid": None,
    }
    if os.path.exists(data + "/global/pg_control"):
        env = dict(os.environ, LC_ALL="C")
        argv = ["%s/pg_controldata" % p["bin"], data]
        try:
            done = subprocess.run(argv, stdout=subprocess.PIPE, timeout=10, env=env)
            match = re.search(r"system identifier:\s*(\d+)", done.stdout.decode())
        except OSError:
            match = None
        found["sysid"] = match.group(1) if match else "unreadable"
    return found


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
        "postgres_available": postgres_available(p["package"]) if p["package"] else True,
        "tools": {
            name: shutil.which(name) is not None for name in ("apt-get", "systemctl", "ss", "iptables")
        },
    }


def postgres_available(package: str) -> Optional[bool]:
    """Whether apt knows a candidate; None when its lists are empty, as on a fresh image."""
    if not [
        name for name in os.listdir("/var/lib/apt/lists") if name.endswith(("_Packages", "_Packages.lz4"))
    ]:
        return None
    return "Candidate: " in output(["apt-cache", "policy", package]).replace("Candidate: (none)", "")


print(json.dumps(look(json.load(sys.stdin))))
