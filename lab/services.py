"""Configuration of the lab's Redis and load balancer. The texts are pure."""

from pathlib import Path

from lab.topology import HOSTNAME, NODES, Topology
from tasks.harbor.api import NEEDED_BY_CLIENTS

ADMIN_PORT = 9999
BACKEND = "harbor"

# The pair takes clients; the third node is for the disaster and is enabled through the admin socket.
_IN_SERVICE = ("node-a", "node-b")


def redis_conf(password: str) -> str:
    """Settings of the shared Redis: a password, and a disk, since Harbor keeps its job queue there."""
    return f"bind 0.0.0.0\nport 6379\nrequirepass {password}\ndir /data\nappendonly yes\n"


def haproxy_cfg(lab: Topology) -> str:
    """Settings of the load balancer: TCP on 443, and a health check that reads Harbor's body.

    Harbor answers its health check with status 200 whatever it found: a check that looks at the status keeps
    a node without a database in service. One that looks at everything takes out the only node for a restart of
    jobservice, which no push or pull waits for. The certificate is not verified: the check asks whether, not who.
    """
    servers = "".join(
        f"    server {node} {lab.address(node)}:443 check check-ssl verify none check-sni {HOSTNAME}"
        f" inter 1s fastinter 400ms downinter 500ms fall 2 rise 2 on-marked-down shutdown-sessions"
        f"{'' if node in _IN_SERVICE else ' disabled'}\n"
        for node in NODES
    )
    checks = "".join(f"    http-check expect rstring '{is_healthy(name)}'\n" for name in NEEDED_BY_CLIENTS)
    return f"""global
    log stdout format raw local0 info
    stats socket ipv4@0.0.0.0:{ADMIN_PORT} level admin
    stats timeout 30s
    maxconn 2000

defaults
    mode tcp
    log global
    option tcplog
    option redispatch
    retries 3
    timeout connect 2s
    timeout check 3s
    timeout client 15m
    timeout server 15m
    timeout client-fin 3s
    timeout server-fin 3s

frontend harbor-https
    bind :443
    default_backend {BACKEND}

backend {BACKEND}
    balance roundrobin
    option httpchk
    http-check send meth GET uri /api/v2.0/health ver HTTP/1.1 hdr Host {HOSTNAME} hdr Connection close
    http-check expect status 200
{checks}{servers}"""


def is_healthy(component: str) -> str:
    """Give the pattern of a component that is well in the body of Harbor's health; either field may come first."""
    name, status = f'"name":[[:space:]]*"{component}"', '"status":[[:space:]]*"healthy"'
    return f"{name},[[:space:]]*{status}|{status},[[:space:]]*{name}"


def write_settings(lab: Topology, redis_password: str) -> list[str]:
    """Write the settings where the services' containers mount them from.

    Returns:
        the services whose settings are not what they were; one that runs must be restarted.
    """
    wanted = {
        "redis": (lab.directory / "redis" / "redis.conf", redis_conf(redis_password)),
        "lb": (lab.directory / "haproxy" / "haproxy.cfg", haproxy_cfg(lab)),
    }
    return [service for service, (file, text) in wanted.items() if _write(file, text)]


def _write(file: Path, text: str) -> bool:
    if file.exists() and file.read_text() == text:
        return False
    file.parent.mkdir(mode=0o700, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(text)
    return True
