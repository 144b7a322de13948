"""Look into the Harbor of this node that is to be adopted, deeper than bootstrap's look. Changes nothing."""

import base64
import glob
import json
import os
import ssl
import time
import urllib.error
import urllib.request
from typing import Any, Dict, List, Optional, Tuple

from tasks.harbor.on_node.containers import inspect
from tasks.harbor.on_node.harbor_found import ADOPTION, CORE, DATABASE, LABEL, directory_of
from tasks.harbor.on_node.secret_files import fingerprint_of
from tasks.on_node.lib import payload, read, reply, run, state

PROXY = "nginx"
SECRETS = {
    "secretkey": "/secret/keys/secretkey",
    "private_key.pem": "/secret/core/private_key.pem",
    "root.crt": "/secret/registry/root.crt",
}
TRUSTED = "/common/config/shared/trust-certificates/*"
# One line: the server's version, the bytes of all databases, and whether Harbor is read-only.
ABOUT = (
    "SELECT current_setting('server_version_num'), (SELECT sum(pg_database_size(oid)) FROM pg_database),"
    " (SELECT string_agg(datname, ',') FROM pg_database WHERE NOT datistemplate)"
)


def published_port() -> Tuple[str, int]:
    """Find where this node's Harbor is reached: scheme and port, HTTPS before HTTP; port 0 when it is not told."""
    ports = ((inspect(PROXY) or {}).get("NetworkSettings") or {}).get("Ports") or {}
    for inside, scheme in (("8443/tcp", "https"), ("8080/tcp", "http")):
        for binding in ports.get(inside) or []:
            if str(binding.get("HostPort", "")).isdigit():
                return scheme, int(binding["HostPort"])
    return "https", 0


def ask_harbor(
    password: str, method: str, path: str, body: Optional[Dict[str, Any]] = None
) -> Tuple[int, Any]:
    """Call the API of this node's Harbor over loopback, as the administrator; status 0: no answer."""
    scheme, port = published_port()
    if not port:
        return 0, None
    # The node's own loopback, where the certificate names something else.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    token = base64.b64encode(("admin:" + password).encode()).decode()
    request = urllib.request.Request(
        "%s://127.0.0.1:%d/api/v2.0%s" % (scheme, port, path),
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": "Basic " + token, "Content-Type": "application/json"},
        method=method,
    )
    handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)]
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=20) as answer:
            text = answer.read(1 << 20)
            return answer.status, json.loads(text.decode("utf-8", "replace")) if text.strip() else None
    except urllib.error.HTTPError as refused:
        return refused.code, None
    except (OSError, ValueError):
        return 0, None


def read_only_of(password: str) -> Tuple[int, bool]:
    """Log in and ask whether Harbor is read-only: the status, and the answer."""
    status, body = ask_harbor(password, "GET", "/configurations")
    value = (body or {}).get("read_only") if isinstance(body, dict) else None
    return status, bool(isinstance(value, dict) and value.get("value"))


def about_database() -> Dict[str, Any]:
    """Ask the bundled database for its version, its size and its databases; empty when it does not answer."""
    argv = ["docker", "exec", DATABASE, "psql", "-U", "postgres", "-XAtq", "-F", "|", "-c", ABOUT]
    status, out, _ = run(argv, 60)
    fields = out.strip().split("|")
    if status != 0 or len(fields) != 3 or not fields[0].isdigit() or not fields[1].isdigit():
        return {}
    names = sorted(set(fields[2].split(",")) - {"postgres"})
    return {"major": int(fields[0]) // 10000, "bytes": int(fields[1]), "names": names}


def count_links(root: str, limit: float) -> int:
    """Count the entries below the repositories until the time is over: what every pass has to read."""
    deadline, found = time.monotonic() + limit, 0
    for _, directories, names in os.walk(root + "/docker/registry/v2/repositories"):
        directories[:] = [name for name in directories if name != "_uploads"]
        found += len(names)
        if time.monotonic() > deadline:
            break
    return found


def roots_of(home: str) -> str:
    """Give the certificates that core trusts: this machine's, and those that Harbor was given beside them, in PEM."""
    paths = ["/etc/ssl/certs/ca-certificates.crt", *sorted(glob.glob(home + TRUSTED))]
    return "\n".join((read(path) or b"").decode("ascii", "replace") for path in paths)


def addresses_of_containers() -> List[str]:
    """List the addresses of this machine's containers; what they open to this machine itself comes from there."""
    names = run(["docker", "ps", "--quiet"], 30)[1].split()
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    return sorted(set(run(["docker", "inspect", "--format", form, *names], 60)[1].split())) if names else []


def free_on(path: str) -> Optional[int]:
    """Tell the free bytes of the NAS; None while it is not mounted."""
    if not os.path.ismount(path):
        return None
    room = os.statvfs(path)
    return room.f_bavail * room.f_frsize


def look_deeper(given: Dict[str, Any]) -> Dict[str, Any]:
    """Answer for one old Harbor; `given` says where it lies."""
    core, home = inspect(CORE), given["directory"]
    label = ((core or {}).get("Config") or {}).get("Labels") or {}
    mine = core is not None and directory_of(core) == home
    status, read_only = read_only_of(given["admin_password"]) if mine else (0, False)
    volume, nas = given["data_volume"], given["nas"]
    adoption = state(ADOPTION)
    here: List[str] = glob.glob(given["nas_images"] + "/docker/registry/v2/*")
    return {
        # By this label its containers are found and stopped; compose before 1.25 set none.
        "labelled": label.get(LABEL + ".working_dir", "").rstrip("/") == home if mine else bool(adoption),
        "project": str(label.get(LABEL) or "") if mine else str(adoption.get("project") or ""),
        "compose_file": os.path.exists(home + "/docker-compose.yml"),
        "login": status,
        "read_only": read_only,
        "database": about_database() if mine and not given["external"] else adoption.get("database") or {},
        "secrets": {name: fingerprint_of(read(volume + path)) for name, path in SECRETS.items()},
        "links": count_links(given["images_at"], given["limit_s"]),
        "containers": addresses_of_containers() if given["external"] else [],
        "roots": roots_of(home) if given["external"] else "",
        "nas_free": free_on(nas),
        "nas_images": bool(here) and os.path.ismount(nas),
    }


if __name__ == "__main__":
    reply(look_deeper(payload()))
