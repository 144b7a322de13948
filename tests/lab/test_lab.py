"""The lab itself: hosts that are real enough, and accidents that are."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from blocks.site_file import read_site_file
from lab.shell import LabError
from lab.site_lab import Lab
from tasks.errors import HostUnreachable, RemoteTimeout
from tasks.hosts.connection import connect

_HEALTHY = json.dumps(
    {
        "status": "healthy",
        "components": [
            {"name": name, "status": "healthy"}
            for name in ("core", "database", "jobservice", "redis", "registry")
        ],
    }
)
_SICK = _HEALTHY.replace('"database", "status": "healthy"', '"database", "status": "unhealthy"')


def _reaches(lab: Lab, machine: str, peer: str, port: int) -> bool:
    probe = f"import socket; socket.create_connection(({lab.node_address(peer)!r}, {port}), 1.0)"
    return lab.exec(machine, ["python3", "-c", probe], check=False).returncode == 0


def test_nodes_are_bare_hosts_with_systemd_reached_over_ssh_with_pinned_keys(lab: Lab) -> None:
    for node in read_site_file(lab.site_file).nodes:
        host = connect(node)
        assert host.run(["cat", "/proc/1/comm"]).stdout.strip() == "systemd"
        assert host.run(["hostname"]).stdout.strip() == node.name
        found = host.run(["findmnt", "--noheadings", "--output", "TARGET", "/mnt/nas"])
        assert found.stdout.strip() == "/mnt/nas"


def test_a_freshly_made_node_has_neither_postgresql_nor_docker(lab: Lab) -> None:
    lab.recreate("node-c")
    for program in ("psql", "docker", "dockerd", "pg_ctlcluster"):
        assert lab.exec("node-c", ["which", program], check=False).returncode != 0


def test_a_second_up_changes_nothing_and_takes_seconds(lab: Lab) -> None:
    before = _identities(lab)
    started = time.monotonic()
    lab.up()
    assert time.monotonic() - started < 20.0
    assert _identities(lab) == before


def test_a_power_cut_kills_processes_and_keeps_disk_address_and_host_key(lab: Lab) -> None:
    node = read_site_file(lab.site_file).nodes[0]
    connect(node).run(["sh", "-c", "echo kept >/root/note; sync /root/note; echo lost >/run/note"])

    lab.stop(node.name)

    assert not lab.is_running(node.name)
    with pytest.raises((HostUnreachable, RemoteTimeout)):
        connect(node).run(["true"], timeout=5)
    lab.start(node.name)
    assert connect(node).run(["cat", "/root/note"]).stdout == "kept\n"
    assert connect(node).read("/run/note") is None


def test_stopping_a_machine_that_has_no_power_is_no_error(lab: Lab) -> None:
    lab.stop("node-c")
    lab.stop("node-c")
    assert not lab.is_running("node-c")


def test_fencing_reports_success_only_for_a_machine_without_power(lab: Lab) -> None:
    fence = [sys.executable, "-m", "lab", "--name", lab.name, "fence"]
    assert subprocess.run([*fence, "node-c"], capture_output=True, timeout=30).returncode == 0
    assert not lab.is_running("node-c")
    unknown = subprocess.run([*fence, "node-z"], capture_output=True, timeout=30, text=True)
    assert unknown.returncode == 1
    assert "no machine 'node-z'" in unknown.stderr


def test_the_site_files_fence_command_powers_the_node_off_from_any_directory(lab: Lab) -> None:
    command = read_site_file(lab.site_file).failover.fence_command
    assert command is not None
    argv = [part.format(node="node-b") for part in command]
    assert subprocess.run(argv, cwd="/", capture_output=True, timeout=30).returncode == 0
    assert not lab.is_running("node-b")
    assert lab.is_running("node-a")


def test_a_cut_separates_two_nodes_and_no_others(lab: Lab) -> None:
    lab.cut("node-a", "node-b")
    assert not _reaches(lab, "node-a", "node-b", 22)
    assert not _reaches(lab, "node-b", "node-a", 22)
    assert _reaches(lab, "node-a", "node-c", 22)
    assert _reaches(lab, "node-a", "redis", 6379)
    lab.heal()
    assert _reaches(lab, "node-a", "node-b", 22)


@pytest.mark.parametrize(("service", "port"), [("redis", 6379), ("lb", 9999), ("oss", 9000)])
def test_a_service_can_be_cut_off_from_one_node(lab: Lab, service: str, port: int) -> None:
    lab.cut(service, "node-a")
    assert not _reaches(lab, "node-a", service, port)
    assert _reaches(lab, "node-b", service, port)


def test_the_orchestrator_can_be_cut_off_while_the_nodes_see_each_other(lab: Lab) -> None:
    lab.cut("orchestrator", "node-a")
    with pytest.raises(OSError, match="timed out"):
        socket.create_connection((lab.node_address("node-a"), 22), 1.0)
    assert _reaches(lab, "node-b", "node-a", 22)


def test_a_connection_that_was_open_before_the_cut_hangs_instead_of_being_refused(lab: Lab) -> None:
    with socket.create_connection((lab.node_address("redis"), 6379), 2.0) as connection:
        lab.cut("orchestrator", "redis")
        connection.settimeout(1.0)
        connection.sendall(b"PING\r\n")
        with pytest.raises(TimeoutError):
            connection.recv(64)
        lab.heal()
        connection.settimeout(10.0)
        assert connection.recv(64).startswith(b"-NOAUTH")


def test_a_cut_outlives_a_power_cut_and_healing_leaves_no_rule_behind(lab: Lab) -> None:
    lab.cut("node-a", "node-b")
    lab.stop("node-a")
    lab.start("node-a")
    assert not _reaches(lab, "node-a", "node-b", 22)
    lab.heal()
    for node in ("node-a", "node-b"):
        for table in ("raw", "mangle"):
            rules = lab.exec(node, ["iptables", "-t", table, "-S"]).stdout
            assert "HARBOR_HA_CUT" not in rules


def test_a_cut_needs_two_machines_that_exist(lab: Lab) -> None:
    with pytest.raises(LabError, match="no machine 'node-z'"):
        lab.cut("node-a", "node-z")
    with pytest.raises(LabError, match="itself"):
        lab.cut("node-a", "node-a")


def test_the_balancer_serves_no_node_whose_health_body_says_unhealthy_with_status_200(lab: Lab) -> None:
    # Whom other tests took out or brought in is forgotten with the process.
    lab.stop("lb")
    lab.start("lb")
    lab.recreate("node-a", "node-b")
    for node in ("node-a", "node-b"):
        _serve_health(lab, node, _HEALTHY)
    _wait_for(lambda: _balancer_status(lab) == {"node-a": "UP", "node-b": "UP", "node-c": "MAINT"})

    lab.exec("node-a", ["sh", "-c", "cat >/root/health"], stdin=_SICK)

    _wait_for(lambda: _balancer_status(lab) == {"node-a": "DOWN", "node-b": "UP", "node-c": "MAINT"})
    lab.recreate("node-a", "node-b")


def test_saved_nodes_come_back_with_disks_and_shared_data_and_without_what_came_later(lab: Lab) -> None:
    lab.recreate("node-a")
    lab.exec(
        "node-a", ["sh", "-c", "echo before >/root/note; mkdir /var/lib/docker/x; echo nas >/mnt/nas/note"]
    )
    lab.save_nodes("scratch")
    lab.exec("node-a", ["sh", "-c", "echo after >/root/note; rm -r /var/lib/docker/x; rm /mnt/nas/note"])
    lab.stop("node-a")

    lab.restore_nodes("scratch")

    kept = lab.exec("node-a", ["sh", "-c", "cat /root/note /mnt/nas/note; ls -d /var/lib/docker/x"]).stdout
    assert kept.split() == ["before", "nas", "/var/lib/docker/x"]
    node = read_site_file(lab.site_file).nodes[0]
    assert connect(node).run(["hostname"]).stdout.strip() == "node-a"
    lab.recreate("node-a")
    lab.empty_shared()


def test_nothing_is_restored_that_was_not_saved(lab: Lab) -> None:
    lab.exec("node-a", ["touch", "/root/untouched"])
    with pytest.raises(LabError, match="Nothing was saved"):
        lab.restore_nodes("never")
    assert lab.exec("node-a", ["cat", "/root/untouched"]).returncode == 0


def _serve_health(lab: Lab, node: str, body: str) -> None:
    directory = lab.topology.directory
    for file, text in (
        ("certificate", (directory / "harbor.pem").read_text()),
        ("key", (lab.topology.secrets / "harbor-key").read_text()),
        ("health", body),
        ("server.py", _SERVER),
    ):
        lab.exec(node, ["sh", "-c", f"umask 077; cat >/root/{file}"], stdin=text)
    lab.exec(node, ["systemd-run", "--quiet", "python3", "/root/server.py"])


def _balancer_status(lab: Lab) -> dict[str, str]:
    with socket.create_connection((lab.node_address("lb"), 9999), 2.0) as admin:
        admin.sendall(b"show stat harbor 4 -1\n")
        table = b"".join(iter(lambda: admin.recv(65536), b"")).decode()
    rows = [line.split(",") for line in table.splitlines() if line.startswith("harbor,")]
    return {row[1]: row[17].split()[0] for row in rows}


def _wait_for(condition: Callable[[], bool], limit: float = 20.0) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def _identities(lab: Lab) -> list[str]:
    return [lab.exec(machine, ["hostname"]).stdout for machine in lab.machines()] + [
        lab.site_file.read_text()
    ]


_SERVER = """
import http.server, ssl

class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = open("/root/health", "rb").read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/root/certificate", "/root/key")
server = http.server.ThreadingHTTPServer(("", 443), Health)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
