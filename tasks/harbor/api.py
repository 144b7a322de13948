"""Harbor's API as far as flows need it: health by its body, read-only, projects, and a write that proves."""

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from blocks import HarborSite
from tasks.errors import HarborHaError
from tasks.harbor.web import Answer, Endpoint, HarborRefused, HarborUnreachable, Session, through_node
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, changed, unchanged

_API = "/api/v2.0"
PROBE_PREFIX = "harbor-ha-probe-"
# What pushes and pulls need; the load balancer's check asks for these by name (docs/load-balancer.md).
NEEDED_BY_CLIENTS = ("core", "database", "redis", "registry")


class NotHealthy(HarborHaError):
    """Harbor did not become healthy in time."""


@dataclass(frozen=True)
class Health:
    """What Harbor says of itself; up to ten seconds old, since its checks are cached.

    Attributes:
        healthy: the body's overall status; the HTTP status is 200 also when everything is broken.
        components: each component's status, with the error if there is one.
    """

    healthy: bool
    components: Mapping[str, str]

    @property
    def unhealthy(self) -> dict[str, str]:
        """The components that are not healthy."""
        return {name: status for name, status in self.components.items() if status != "healthy"}

    @property
    def serves(self) -> bool:
        """Whether all is healthy that pushes and pulls need; one that is not named is not."""
        return all(self.components.get(name) == "healthy" for name in NEEDED_BY_CLIENTS)


class HarborApi:
    """Calls of Harbor's API over one kept connection; close it, or use it as a context.

    Args:
        endpoint: a node or the load balancer.
        timeout: seconds for each call.
    """

    def __init__(self, endpoint: Endpoint, timeout: float = 10.0) -> None:
        self.session = Session(endpoint, timeout)

    def __enter__(self) -> "HarborApi":
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def ping(self) -> bool:
        """Tell whether core answers; it says nothing about the database."""
        return self._call("GET", "/ping", signed=False).status == 200

    def health(self) -> Health:
        """Read the health body.

        Raises:
            HarborUnreachable, HarborRefused: no answer, or a proxy's error page.
        """
        return parsed_health(self._checked("GET", "/health", signed=False).json())

    def systeminfo(self) -> dict[str, Any]:
        """Read version, read-only state and storage; as the administrator."""
        return dict(self._checked("GET", "/systeminfo").json())

    def statistics(self) -> dict[str, Any]:
        """Read the counts of projects, repositories and bytes."""
        return dict(self._checked("GET", "/statistics").json())

    def configure(self, **settings: Any) -> None:
        """Set configuration values."""
        self._checked("PUT", "/configurations", settings)

    def set_read_only(self, read_only: bool) -> None:
        """Refuse or allow writes; takes effect on all nodes at once through the shared Redis."""
        self.configure(read_only=read_only)

    def projects(self) -> list[str]:
        """List the names of all projects."""
        names: list[str] = []
        for page in range(1, 10_000):
            found = self._checked("GET", f"/projects?page={page}&page_size=100").json() or []
            names += [str(project["name"]) for project in found]
            if len(found) < 100:
                break
        return names

    def ensure_project(self, name: str, *, public: bool = False) -> bool:
        """Create a project; False when it is there already."""
        body = {"project_name": name, "metadata": {"public": "true" if public else "false"}}
        answer = self._call("POST", "/projects", body)
        if answer.status == 409:
            return False
        self._accept(answer, "POST", "/projects")
        return True

    def delete_repository(self, project: str, repository: str) -> bool:
        """Delete a repository; False when there is none."""
        # A slash in the name is encoded twice: the proxy decodes it once.
        path = f"/projects/{quote(project)}/repositories/{quote(quote(repository, safe=''), safe='')}"
        answer = self._call("DELETE", path)
        if answer.status == 404:
            return False
        self._accept(answer, "DELETE", path)
        return True

    def probe_write(self) -> float:
        """Prove that Harbor writes to its database, by creating a label and deleting it again.

        Health is a cached `SELECT 1`, which a read-only standby answers just as well.

        Returns:
            Seconds that the creation took.

        Raises:
            HarborUnreachable, HarborRefused: the write was not accepted.
        """
        label = {"name": PROBE_PREFIX + secrets.token_hex(6), "scope": "g", "description": "may be deleted"}
        start = time.monotonic()
        created = self._checked("POST", "/labels", label)
        took = time.monotonic() - start
        number = created.headers.get("location", "").rstrip("/").rpartition("/")[2]
        if not number.isdigit():
            raise HarborRefused("A label was created but its number was not told.", created.status)
        self._checked("DELETE", f"/labels/{number}")
        return took

    def _checked(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, signed: bool = True
    ) -> Answer:
        return self._accept(self._call(method, path, body, signed=signed), method, path)

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, signed: bool = True
    ) -> Answer:
        headers = self.session.endpoint.authorization() if signed else {}
        content = None if body is None else json.dumps(body).encode()
        if content is not None:
            headers["Content-Type"] = "application/json"
        return self.session.request(method, _API + path, content, headers)

    def _accept(self, answer: Answer, method: str, path: str) -> Answer:
        if 200 <= answer.status < 300:
            return answer
        endpoint = self.session.endpoint
        raise HarborRefused(
            f"{method} {_API}{path.partition('?')[0]} was answered with {answer.status}: {_message(answer)}",
            answer.status,
            where=f"{endpoint.address}:{endpoint.port}",
            remedy=_remedy(answer.status),
            code=_code(answer),
        )


def parsed_health(body: Mapping[str, Any]) -> Health:
    """Read the document of /health; a component without a name or status counts as unknown."""
    components = {
        str(part.get("name", "?")): _status_of(part) for part in body.get("components") or [] if part
    }
    return Health(body.get("status") == "healthy", components)


def wait_migrated(site: HarborSite, host: Host, *, timeout: float = 600.0) -> Outcome:
    """Wait until a node's core answers: it listens only when the schema is complete. Changes nothing.

    Health would be asked for in vain for ten seconds more, for as long as Harbor keeps its first checks.

    Args:
        site: its certificate and name.
        host: the node that was started first.
        timeout: seconds; an upgrade over many versions migrates for minutes.

    Raises:
        NotHealthy: not in time.
    """
    start = time.monotonic()
    with HarborApi(through_node(site, host.name), timeout=5.0) as api:
        while time.monotonic() < start + timeout:
            with contextlib.suppress(HarborUnreachable):
                if api.ping():
                    return unchanged(f"core answers after {time.monotonic() - start:.1f} s")
            time.sleep(0.2)
    raise NotHealthy(
        f"Harbor's core does not answer after {timeout:.0f} s.",
        where=host.name,
        meaning="The schema may be incomplete; no other node was started.",
        remedy=f"Look at /var/log/harbor/core.log on {host.name}; then run the flow again.",
    )


def wait_healthy(site: HarborSite, host: Host, *, timeout: float = 180.0) -> Outcome:
    """Wait until a node's Harbor says that all its components are healthy. Changes nothing.

    Args:
        site: its certificate and name.
        host: the node.
        timeout: seconds; the first start migrates the schema.

    Raises:
        NotHealthy: not in time, with what was wrong at the end.
    """
    return _wait(site, host, timeout, lambda health: health.healthy, "healthy")


def wait_serving(site: HarborSite, host: Host, *, timeout: float = 180.0) -> Outcome:
    """Wait until a node's Harbor can serve clients, whatever else of it is not healthy yet. Changes nothing.

    Args:
        site: its certificate and name.
        host: the node.
        timeout: seconds.

    Raises:
        NotHealthy: not in time, with what was wrong at the end.
    """
    return _wait(site, host, timeout, lambda health: health.serves, "serving")


def _wait(
    site: HarborSite, host: Host, timeout: float, good: Callable[[Health], bool], wanted: str
) -> Outcome:
    deadline, start = time.monotonic() + timeout, time.monotonic()
    last = "no answer"
    with HarborApi(through_node(site, host.name), timeout=5.0) as api:
        while time.monotonic() < deadline:
            try:
                health = api.health()
                if good(health):
                    return unchanged(f"{wanted} after {time.monotonic() - start:.1f} s")
                last = ", ".join(f"{name}: {status}" for name, status in health.unhealthy.items())
            except (HarborUnreachable, HarborRefused, ValueError) as error:
                last = str(error)
            time.sleep(0.2)
    raise NotHealthy(
        f"Harbor is not {wanted} after {timeout:.0f} s ({last}).",
        where=host.name,
        remedy=f"Look at /var/log/harbor and `docker ps` on {host.name}; then run the flow again.",
    )


def ensure_probe_project(site: HarborSite, host: Host, *, project: str) -> Outcome:
    """Create the private project that the proofs push to."""
    with HarborApi(through_node(site, host.name)) as api:
        created = api.ensure_project(project)
    return changed(f"created project {project}") if created else unchanged(f"project {project} exists")


def _status_of(part: Mapping[str, Any]) -> str:
    status, error = str(part.get("status", "unknown")), part.get("error")
    return f"{status} ({error})" if error else status


def _message(answer: Answer) -> str:
    try:
        errors = answer.json()["errors"]
        return "; ".join(str(error.get("message") or error.get("code")) for error in errors)
    except (ValueError, KeyError, TypeError, AttributeError):
        return answer.body[:200].decode("utf-8", "replace") or "no text"


def _code(answer: Answer) -> str:
    try:
        return str(answer.json()["errors"][0]["code"])[:40]
    except (ValueError, KeyError, TypeError, IndexError):
        return ""


def _remedy(status: int) -> str:
    if status == 401:
        return "Harbor's admin password is not the one in the site file; it counts at the first start only."
    if status == 403:
        return "Harbor may be in read-only mode: look at configurations in its UI."
    if status in (502, 503, 504):
        return "The proxy does not reach core: it may be starting, or have a new address: restart proxy."
    return ""
