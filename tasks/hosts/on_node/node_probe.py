"""Read-only look at one node; runs there, as root, with the node's own Python (3.6 or newer, no packages).

Sent as a whole with `python3 -c`; a JSON object with what to look at comes in, one with what was seen goes
out. Every part runs in a thread of its own: on a sick machine some part always hangs (a dead NFS server, a
stopped postmaster, a Docker engine out of disk), and the others must still be heard. A part that is late or
fails is reported under `problems` and left out.
"""

import base64
import functools
import glob
import http.client
import json
import os
import pwd
import re
import socket
import ssl
import sys
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from tasks.hosts.on_node.probe_reading import STATE_FILE_LIMIT, output_of, text_of
from tasks.on_node.jobservice import TWO_CORES, older_than_core
from tasks.on_node.pg_processes import server_processes
from tasks.on_node.registry_rights import denied_paths, rights_command

# Time for one lost packet, which is sent again after a second; every look at a dead peer costs it.
PORT_TIMEOUT_S = 1.2
Part = Tuple[str, Callable[[], Any]]


def as_postgres(argv: List[str]) -> List[str]:
    """Prefix a command so that it runs as postgres; runuser would write to the log of logins each time."""
    if os.geteuid() != 0:
        return argv
    user = pwd.getpwnam("postgres")
    ids = ["--reuid=%d" % user.pw_uid, "--regid=%d" % user.pw_gid, "--init-groups"]
    return ["setpriv"] + ids + argv


def psql(want: Dict[str, Any], database: str, sql: str) -> str:
    """Run SQL over the local socket, with time limits for connecting, the statement and the program."""
    argv = [want["bin_dir"] + "/psql", "-XAtqw", "-F", "|", "-v", "ON_ERROR_STOP=1"]
    argv += ["-v", "database=" + want["database"], "-h", want["socket_dir"], "-p", str(want["port"])]
    argv += ["-d", database, "-f", "-"]
    limits = {
        "PGCONNECT_TIMEOUT": "2",
        "PGOPTIONS": "-c statement_timeout=1800",
        "PGAPPNAME": "harbor-ha-probe",
    }
    return output_of(as_postgres(argv), want["limit_s"] - 0.5, sql, limits)


def server(want: Dict[str, Any]) -> Dict[str, Any]:
    """Ask the running server; on a standby also for its true timeline, which SQL does not tell."""
    seen: Dict[str, Any] = json.loads(psql(want, "postgres", want["query"]))
    if seen["in_recovery"]:
        # The control file's timeline was 3 while the standby was on 5; only a walsender knows.
        reply = psql(want, "dbname=postgres replication=database", "IDENTIFY_SYSTEM;")
        seen["timeline"] = int(reply.split("|")[1])
    return seen


def control(want: Dict[str, Any]) -> Dict[str, Any]:
    """Read the control file, and the length of the last checkpoint record when the server is down."""
    printed = output_of([want["bin_dir"] + "/pg_controldata", "-D", want["data_dir"]], want["limit_s"])
    seen: Dict[str, Any] = {"text": printed}
    place = re.search(r"^Latest checkpoint location:\s*(\S+)", printed, re.M)
    timeline = re.search(r"^Latest checkpoint's TimeLineID:\s*(\d+)", printed, re.M)
    if place and timeline and re.search(r"^Database cluster state:\s*shut down", printed, re.M):
        wal = want["data_dir"] + "/pg_wal"
        argv = [want["bin_dir"] + "/pg_waldump", "-p", wal, "-t", timeline.group(1), "-s", place.group(1)]
        try:
            record = output_of(as_postgres(argv + ["-n", "1"]), want["limit_s"])
            length = re.search(r"len \(rec/tot\):\s*\d+/\s*(\d+)", record)
            seen["checkpoint_length"] = int(length.group(1)) if length else None
        except RuntimeError as error:
            seen["waldump_error"] = str(error)
    return seen


def auto_conf_names(data_dir: str) -> List[str]:
    """List the settings that override the configuration files; the names only, values can be secret."""
    lines = (text_of(data_dir + "/postgresql.auto.conf") or "").splitlines()
    found = [re.match(r"\s*([A-Za-z_][\w.]*)\s*=", line) for line in lines]
    return sorted({match.group(1).lower() for match in found if match})


def cluster(want: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """Look at the cluster on disk, running or not; None when there is none."""
    data = os.path.realpath(want["data_dir"])
    version = text_of(data + "/PG_VERSION")
    if version is None:
        return None
    pid_file = (text_of(data + "/postmaster.pid") or "").splitlines()
    label = text_of(data + "/backup_label") or ""
    method = re.search(r"^BACKUP METHOD:\s*(.+)$", label, re.M)
    histories = sorted(glob.glob(data + "/pg_wal/????????.history"))
    own, unknown = server_processes(data)
    return {
        "major": int(version.strip().split(".")[0]),
        # Unknown is never "stopped".
        "processes": own + unknown,
        "unknown_processes": unknown,
        "postmaster_status": pid_file[7].strip() if len(pid_file) > 7 else None,
        "standby_signal": os.path.exists(data + "/standby.signal"),
        "recovery_signal": os.path.exists(data + "/recovery.signal"),
        "backup_label_method": method.group(1).strip() if method else None,
        "auto_conf": auto_conf_names(data),
        "writable": os.access(data, os.W_OK),
        "ready_count": len(glob.glob(data + "/pg_wal/archive_status/*.ready")),
        "history_timeline": int(os.path.basename(histories[-1])[:8], 16) if histories else None,
        "history": text_of(histories[-1]) if histories else None,
    }


def autostart(want: Dict[str, Any]) -> Dict[str, Any]:
    """Tell what starts the server at boot: Debian's start.conf, and whether the unit is masked."""
    lines = (text_of(want["conf_dir"] + "/start.conf") or "").splitlines()
    words = [line.split()[0] for line in lines if line.strip() and not line.lstrip().startswith("#")]
    units = ["/etc/systemd/system/" + want["unit"], "/run/systemd/system/" + want["unit"]]
    masked = any(os.path.islink(unit) and os.readlink(unit) == "/dev/null" for unit in units)
    return {"start_conf": words[0] if words else None, "masked": masked}


def guard(want: Dict[str, Any]) -> Dict[str, Any]:
    """Read what the guard tells of itself, and how long ago that was; a boot empties the directory of the file.

    By the time since the machine's start, which nobody sets.
    """
    text = text_of(want["guard_file"])
    if text is None:
        return {"present": False}
    told = json.loads(text)
    up = float((text_of("/proc/uptime") or "").split()[0])
    seen: Dict[str, Any] = {"present": True, "age_s": max(0.0, up - float(told["uptime"]))}
    seen.update({name: told.get(name) for name in ("version", "self_fence_s")})
    return seen


def shared(want: Dict[str, Any]) -> Dict[str, Any]:
    """Read the NAS's copies of what our flows recorded; in processes of their own, as NFS can hang for ever."""
    found: Dict[str, Any] = {}
    for name, path in sorted(want["shared_files"].items()):
        quiet = ["sh", "-c", 'if [ -e "$1" ]; then head -c 65536 "$1"; fi', "sh", path]
        text = output_of(quiet, want["limit_s"] - 0.5)
        try:
            if text:
                found[name] = json.loads(text)
        except ValueError:
            found[name] = {"damaged": True}
    return found


def addresses(want: Dict[str, Any]) -> List[str]:
    """List the IP addresses by which others may know this machine: a second interface is this machine too.

    Docker's bridges have the same addresses on every machine, and a veth has none of its own.
    """
    try:
        lines = output_of(["ip", "-o", "addr", "show", "scope", "global"], want["limit_s"]).splitlines()
    except FileNotFoundError:
        return output_of(["hostname", "-I"], want["limit_s"]).split()
    rows = [line.split() for line in lines]
    own = [row for row in rows if len(row) > 3 and not re.match(r"docker|br-|veth|virbr|cni", row[1])]
    return sorted({row[3].partition("/")[0] for row in own if row[2] in ("inet", "inet6")})


def disk(path: str, limit: float) -> Optional[Dict[str, int]]:
    """Measure the file system of a directory; in a process of its own, as NFS can hang for ever."""
    while path != "/" and not os.path.exists(path):
        path = os.path.dirname(path)
    size, total, free = output_of(["stat", "-f", "-c", "%S %b %a", path], limit).split()
    return {"total": int(size) * int(total), "free": int(size) * int(free)}


def nas(want: Dict[str, Any]) -> Dict[str, Any]:
    """Look at the shared file system: mounted, and answering."""
    mounts = [line.split() for line in (text_of("/proc/self/mounts") or "").splitlines()]
    seen: Dict[str, Any] = {"mounted": any(mount[1] == want["nas_path"] for mount in mounts)}
    limit = want["limit_s"] - 0.5
    output_of(["test", "-d", want["nas_path"]], limit)
    seen["disk"] = disk(want["nas_path"], limit)
    return seen


def images(want: Dict[str, Any]) -> List[str]:
    """List what of the image data the registry's user may not use."""
    registry = want["nas_path"].rstrip("/") + "/registry"
    return denied_paths(output_of(rights_command(registry), want["limit_s"] - 0.5), registry)


class EngineConnection(http.client.HTTPConnection):
    """HTTP over the Docker engine's socket; the docker program costs a tenth of a second each time."""

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect("/var/run/docker.sock")


def engine(path: str, limit: float) -> Any:
    """Ask the Docker engine; None when it does not know the thing."""
    connection = EngineConnection("docker", timeout=limit)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        body = reply.read()
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise RuntimeError("the Docker engine answered %d" % reply.status)
        return json.loads(body.decode("utf-8"))
    finally:
        connection.close()


def database_host(lines: List[str]) -> Optional[str]:
    """Pick the database host out of environment lines; nothing else of them leaves the node."""
    for line in lines:
        if line.startswith("POSTGRESQL_HOST="):
            return line.split("=", 1)[1].strip()
    return None


def harbor(want: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """Look at which database Harbor's files name; None where no Harbor was installed."""
    env = text_of(want["install_dir"] + "/common/config/core/env")
    if env is None and not os.path.exists(want["install_dir"] + "/harbor.yml"):
        return None
    return {"configured_database": database_host((env or "").splitlines())}


def harbor_containers(want: Dict[str, Any]) -> Dict[str, Any]:
    """Look at Harbor's containers and at which database the running core uses.

    A part of its own: an engine that is down must not take the facts of the files with it.
    """
    home = want["install_dir"]
    project = re.sub(r"[^-_a-z0-9]", "", os.path.basename(home.rstrip("/")).lower())
    containers = {}
    if os.path.exists("/var/run/docker.sock"):
        for row in engine("/containers/json?all=1", want["limit_s"]):
            labels = row.get("Labels") or {}
            directory = labels.get("com.docker.compose.project.working_dir")
            if directory == home or labels.get("com.docker.compose.project") == project:
                containers[row["Names"][0].lstrip("/")] = row["State"] + "|" + row["Status"]
    core, jobs = [
        engine("/containers/%s/json" % name, want["limit_s"]) if name in containers else None
        for name in ("harbor-core", "harbor-jobservice")
    ]
    return {
        "containers": containers,
        "running_database": database_host(core["Config"]["Env"]) if core else None,
        "jobs_behind": older_than_core(core, jobs, two_cores(want["state_dir"])),
    }


def two_cores(state_dir: str) -> Dict[str, Any]:
    """Read when this node had two cores; empty when it never had, or nothing can be read."""
    try:
        found = json.loads(text_of(state_dir + "/" + TWO_CORES) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def harbor_health(want: Dict[str, Any]) -> Dict[str, Any]:
    """Ask this node's Harbor how it is (it says so in the body; the status is always 200) and who it is."""
    # No check of the certificate: this is the node's own loopback, and an expired one must be reported.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(
        "127.0.0.1", want["https_port"], timeout=want["harbor_s"], context=context
    )
    try:
        connection.connect()
        der = connection.sock.getpeercert(True)
        seen: Dict[str, Any] = {"certificate": base64.b64encode(der or b"").decode("ascii")}
        connection.request("GET", "/api/v2.0/health", headers={"Host": want["hostname"]})
        reply = connection.getresponse()
        body = reply.read(STATE_FILE_LIMIT)
        seen["http_status"] = reply.status
        if reply.status == 200:
            health = json.loads(body.decode("utf-8"))
            seen["status"] = health.get("status")
            seen["components"] = {c["name"]: c.get("status") for c in health.get("components", [])}
        return seen
    finally:
        connection.close()


def reaches(address: str, port: int, limit_s: float = PORT_TIMEOUT_S) -> str:
    """Try a TCP connection: `open`, `refused` (the machine lives, the service does not) or `silent`."""
    try:
        socket.create_connection((address, port), timeout=limit_s).close()
        return "open"
    except ConnectionRefusedError:
        return "refused"
    except OSError:
        return "silent"


def state_files(want: Dict[str, Any]) -> Dict[str, Any]:
    """Read what our flows recorded on this node: small JSON files, by name without the suffix."""
    found: Dict[str, Any] = {}
    for path in sorted(glob.glob(want["state_dir"] + "/*.json")):
        name = os.path.basename(path)[: -len(".json")]
        text = text_of(path)
        try:
            if text is not None:
                found[name] = json.loads(text)
        except ValueError:
            # Written atomically by us, so this is a damaged disk or a hand; it must not pass for absent.
            found[name] = {"damaged": True}
    return found


def machine(want: Dict[str, Any]) -> Dict[str, Any]:
    """Tell one run of the machine from the next, also in a container, which shares its host's boot id."""
    first = (text_of("/proc/1/stat") or "").rpartition(")")[2].split()
    up = float((text_of("/proc/uptime") or "0").split()[0])
    started = int(first[19]) / float(os.sysconf("SC_CLK_TCK")) if len(first) > 19 else 0.0
    boot = (text_of("/proc/sys/kernel/random/boot_id") or "").strip()
    return {"boot_id": "%s:%.0f" % (boot, started), "uptime_s": max(0.0, up - started), "clock": time.time()}


def parts(want: Dict[str, Any]) -> List[Part]:
    """List what to look at: each part's name and the function that looks."""
    found: List[Part] = [
        ("machine", lambda: machine(want)),
        ("addresses", lambda: addresses(want)),
        ("state", lambda: state_files(want)),
        ("nas", lambda: nas(want)),
        ("shared", lambda: shared(want)),
    ]
    if want["runs_postgres"] and os.path.exists(want["data_dir"] + "/PG_VERSION"):
        found += [
            ("cluster", lambda: cluster(want)),
            ("control", lambda: control(want)),
            ("server", lambda: server(want)),
        ]
    if want["runs_postgres"]:
        found.append(("autostart", lambda: autostart(want)))
        found.append(("guard", lambda: guard(want)))
        found.append(("data_disk", lambda: disk(want["data_dir"], want["limit_s"])))
    if want["runs_harbor"]:
        found += [("images", lambda: images(want))] if want["images"] else []
        found += [
            ("harbor", lambda: harbor(want)),
            ("harbor_containers", lambda: harbor_containers(want)),
            ("harbor_health", lambda: harbor_health(want)),
        ]
    for name, address, port in want["peers"]:
        found.append(("tcp:" + name, functools.partial(reaches, address, port, want["port_s"])))
    return found


def look(want: Dict[str, Any]) -> Dict[str, Any]:
    """Run all parts at once and return what came in time."""
    seen: Dict[str, Any] = {}
    problems: Dict[str, str] = {}

    def run(name: str, function: Callable[[], Any]) -> None:
        try:
            seen[name] = function()
        except Exception as error:
            problems[name] = "%s" % error or type(error).__name__

    work = parts(want)
    threads = [threading.Thread(target=run, args=part, daemon=True) for part in work]
    deadline = time.monotonic() + want["limit_s"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    for name, _ in work:
        if name not in seen and name not in problems:
            problems[name] = "did not answer within %.0f s" % want["limit_s"]
    return {"seen": dict(seen), "problems": dict(problems)}


if __name__ == "__main__":
    json.dump(look(json.load(sys.stdin)), sys.stdout)
    sys.stdout.flush()
    # Threads that hang in a system call must not keep the program from ending.
    os._exit(0)
