"""Adopt a Harbor that stands on a node: look into it, copy its images, take it out of service, or put it back.

It lies beside the site's own Harbor, in another directory with another data volume, and nothing in either is changed
or removed; its containers are, since both have containers of the same names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from blocks import HarborSite
from tasks.errors import HarborHaError, Refused
from tasks.harbor import external_database, external_look, secrets
from tasks.harbor.external_database import ExternalSeen
from tasks.harbor.found import HarborFound, observe
from tasks.harbor.on_node import adoption_look, adoption_steps, copy_images
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.outcome import Outcome, changed, unchanged
from tasks.postgres.layout import layout_of
from tasks.postgres.sql import execute

_LOOK = node_program(adoption_look)
_STEPS = node_program(adoption_steps)
_COPY = node_program(copy_images)

PUT_BACK = adoption_steps.BACK
KEPT_AT = adoption_steps.KEPT_AT
# In the record on the node, as the command that puts the old Harbor back writes it.
RETURNED = b'"phase": "returned"'
# What that command notes when it begins, and when it has ended.
_PUT_BACK_AT = ("returning", "returned")
_LINKS_LIMIT_S = 10.0
# A call copies for so long and is called again: what it has proven is kept, and the flow shows that it goes on.
COPY_SLICE_S = 300.0
# A look at millions of files on a slow disk comes before the first copy.
_COPY_TIMEOUT_S = 6 * 3600.0
# A pass that still copies this much is followed by another one while Harbor serves.
_SMALL_PASS_S = 20.0
_PASSES = 5


class NotAtThisPoint(HarborHaError):
    """The adoption has come to another point since: the old Harbor was put back, or another run goes on with it."""


@dataclass(frozen=True)
class OldHarbor:
    """What a Harbor that is to be adopted is like, beyond `HarborFound`.

    Attributes:
        node: where it runs.
        found: the first look.
        project: the compose project's name.
        labelled: its containers carry the label by which they are found and stopped.
        compose_file: its docker-compose.yml is where the containers say.
        login: status of a login with the site's admin password; 0 when it does not answer.
        read_only: it is read-only already.
        database_major, database_bytes: of the bundled or the external server; None when it does not answer.
        databases: of the bundled server.
        external: the external database; None for a bundled one, and once its rows are in the pair.
        secrets: fingerprint of each secret file; None for a missing one.
        links: files below the repositories, at the least.
        nas_free: bytes; None while the NAS is not mounted.
        nas_images: the NAS has images already.
        roots: certificates in PEM that an external database's is verified by.
    """

    node: str
    found: HarborFound
    project: str = ""
    labelled: bool = True
    compose_file: bool = True
    login: int = 200
    read_only: bool = False
    database_major: int | None = None
    database_bytes: int | None = None
    databases: tuple[str, ...] = ()
    external: ExternalSeen | None = None
    secrets: Mapping[str, str | None] = field(default_factory=dict)
    links: int = 0
    nas_free: int | None = None
    nas_images: bool = False
    roots: str = field(default="", repr=False)


def look(site: HarborSite, host: Host, found: HarborFound) -> OldHarbor:
    """Look into a node's old Harbor. Changes nothing."""
    given = {
        "directory": found.directory,
        "data_volume": _volume(found),
        "images_at": found.images_at or "",
        "nas": site.nas.path.rstrip("/"),
        "nas_images": site.nas.registry.rstrip("/"),
        "admin_password": site.harbor.admin_password.get_secret_value(),
        "limit_s": _LINKS_LIMIT_S,
        "external": bool(found.database_host),
    }
    seen: dict[str, Any] = host.python(_LOOK, given, timeout=180.0)
    external = _look_at_external(host, found, seen) if found.database_host else None
    database: dict[str, Any] = seen["database"]
    if external is not None:
        database = {"major": external.major, "bytes": external.bytes}
    return OldHarbor(
        node=host.name,
        found=found,
        project=seen["project"],
        labelled=seen["labelled"],
        compose_file=seen["compose_file"],
        login=seen["login"],
        read_only=seen["read_only"],
        database_major=database.get("major"),
        database_bytes=database.get("bytes"),
        databases=tuple(database.get("names", ())),
        external=external,
        secrets=seen["secrets"],
        links=seen["links"],
        nas_free=seen["nas_free"],
        nas_images=seen["nas_images"],
        roots=seen["roots"],
    )


def _look_at_external(host: Host, found: HarborFound, seen: Mapping[str, Any]) -> ExternalSeen | None:
    if found.adoption == "moved":
        return None
    external = external_look.look_at(host, _section(host, found), found.core_database, seen["roots"])
    # On this machine itself they come from Harbor's own containers.
    others = tuple(address for address in external.others if address not in seen["containers"])
    return replace(external, others=others)


def _section(host: Host, found: HarborFound) -> Mapping[str, Any]:
    text = host.read(f"{found.directory}/harbor.yml") or b""
    return external_database.section_of(text.decode("utf-8", "replace"))


def noted(host: Host) -> dict[str, Any]:
    """Read what `begin` noted: where the old Harbor lies. Another look would count its files, while clients wait.

    Raises:
        Refused: nothing was noted on the node.
    """
    found: dict[str, Any] = host.python(_STEPS, {"do": "noted"}, timeout=30.0)["found"]
    if not found:
        raise Refused(
            f"{host.name} has no Harbor that is being adopted.", ["Run `adopt` from its beginning."]
        )
    return found


def _act(host: Host, do: str, *, timeout: float, **given: Any) -> dict[str, Any]:
    """Do a step that the node does at a certain point of the adoption only.

    Raises:
        NotAtThisPoint: it is at another one.
    """
    answer: dict[str, Any] = host.python(_STEPS, {"do": do, **given}, timeout=timeout)
    if "stands_at" not in answer:
        return answer
    stands = answer["stands_at"]
    if stands in _PUT_BACK_AT:
        meaning = "The old Harbor was put back, or is being put back, and takes pushes: it was left alone."
        remedy = f"Let `{PUT_BACK}` come to its end. To adopt it again run `adopt`, which copies it anew."
    else:
        meaning = "Another run of `adopt` has gone on with it, while this one stood still."
        remedy = "Look at the other run. When it has ended, run `adopt` again; it looks anew."
    raise NotAtThisPoint(
        f"The adoption is at `{stands or 'its beginning'}`, and this is a step of `{answer['step_of']}`.",
        where=host.name,
        meaning=f"{meaning} Nothing was changed by this step; what was copied to the site before stays there.",
        remedy=remedy,
    )


def begin(site: HarborSite, host: Host, *, planned: str = "") -> Outcome:
    """Note what was found, copy its configuration aside, write the command that puts it back.

    Args:
        site: the site.
        host: where the old Harbor runs.
        planned: how far the adoption was when this run was planned.

    Raises:
        Refused: it is gone since the look.
        NotAtThisPoint: the plan is void.
    """
    seen = observe(site, host)
    if seen is None:
        raise Refused(
            f"{host.name} has no Harbor that could be adopted.", ["Run `adopt` from its beginning."]
        )
    old = look(site, host, seen)
    found = old.found
    given = {
        "planned": planned,
        "found": {
            "directory": found.directory,
            "version": found.version,
            "services": list(found.services),
            "data_volume": found.data_volume,
            "images_at": found.images_at,
            "database_at": found.database_at,
            "core": {
                **found.core_database,
                "POSTGRESQL_HOST": found.database_host,
                "EXT_ENDPOINT": found.external_url,
            },
        },
        "project": old.project,
        "database": {
            "major": old.database_major,
            "bytes": old.database_bytes,
            "names": list(old.databases),
        },
        "units": list(found.units),
        "install_dir": site.harbor.install_dir.rstrip("/"),
        "psql": f"{layout_of(site).bin}/psql" if found.database_host else "",
        "access": _access(host, old) if old.external else {},
    }
    first = _act(host, "begin", timeout=180.0, **given)["first"]
    detail = f"configuration kept in {KEPT_AT}; {PUT_BACK} puts it back"
    return changed(detail) if first else unchanged(detail)


def _access(host: Host, old: OldHarbor) -> dict[str, str]:
    """Render the files by which the external database is reached from its node, by their names. Secrets."""
    database = external_database.database_of(_section(host, old.found))
    service, password, roots = external_database.FILES
    return {
        service: external_database.service_file(database, KEPT_AT),
        password: external_database.pass_file(database),
        roots: old.roots,
    }


def keep_secrets(site: HarborSite, host: Host) -> Outcome:
    """Give the site's data volume the old Harbor's secretkey and token keys.

    Raises:
        SecretsDiffer: another one lies there already; it is never overwritten.
    """
    volume = str(noted(host)["data_volume"]).rstrip("/")
    wanted = secrets.paths(site)
    source = {name: volume + path for name, path in adoption_look.SECRETS.items()}
    return secrets.copied_on_node(host, source, wanted)


def keep_settings(site: HarborSite, host: Host) -> Outcome:
    """Begin the site's harbor.yml and override with the old ones; what the operator wrote there goes on."""
    given = {
        "do": "files",
        "directory": noted(host)["directory"],
        "install_dir": site.harbor.install_dir.rstrip("/"),
    }
    done: list[str] = host.python(_STEPS, given, timeout=60.0)["done"]
    return changed(f"copied {', '.join(done)}") if done else unchanged("they are there")


def copy_once(site: HarborSite, host: Host) -> Outcome:
    """Copy what the NAS does not have of the old Harbor's images, to the end.

    Raises:
        HarborHaError: more is damaged than a disk's old age explains; see `on_node/copy_images.py`.
    """
    given = {
        "source": noted(host)["images_at"],
        "target": site.nas.registry.rstrip("/"),
        "nas": site.nas.path.rstrip("/"),
        "limit_s": COPY_SLICE_S,
    }
    total = {"copied": 0, "bytes": 0}
    while True:
        seen: dict[str, Any] = host.python(_COPY, given, timeout=_COPY_TIMEOUT_S)
        total = {name: total[name] + seen[name] for name in total}
        if seen["whole"]:
            break
    refuse_much_damage(seen, host.name)
    detail = f"{seen['blobs']:,} blobs there and proven, {total['bytes'] / 1e6:,.0f} MB copied in this pass"
    if seen["damaged"]:
        detail += f"; damaged in the old Harbor and left out: {', '.join(seen['named'])}"
    outcome = changed(detail) if total["copied"] else unchanged(detail)
    return replace(outcome, data={"seconds": seen["seconds"], "copied": total["copied"]})


# A few of a million blobs may have rotted on an old disk; a hundredth is a fault of another kind.
MOST_DAMAGED = 0.01


def refuse_much_damage(seen: Mapping[str, Any], where: str) -> None:
    """Stop where so many blobs have other content than their name that something else must be wrong."""
    if seen["damaged"] > max(1.0, MOST_DAMAGED * seen["blobs"]):
        raise HarborHaError(
            f"{seen['damaged']} of {seen['blobs']} blobs have other content than their digest says, such as "
            f"{', '.join(seen['named'][:3])}.",
            where=where,
            meaning="They are damaged on the old Harbor's disk, and cannot be pulled from it either.",
            remedy="Look at the disk and its file system; then run `adopt` again, it goes on.",
        )


def copy_while_it_serves(site: HarborSite, host: Host) -> Outcome:
    """Copy until a pass is short: what is left then is what was pushed in seconds."""
    outcome = copy_once(site, host)
    done, passes = outcome.changed, 1
    while outcome.changed and passes < _PASSES:
        outcome = copy_once(site, host)
        passes += 1
        if outcome.data["seconds"] < _SMALL_PASS_S:
            break
    return replace(outcome, changed=done, detail=f"{passes} passes; the last: {outcome.detail}")


def refuse_writes(site: HarborSite, host: Host) -> Outcome:
    """Make the old Harbor read-only; pulls go on."""
    password = site.harbor.admin_password.get_secret_value()
    answer = _act(host, "read-only", timeout=120.0, admin_password=password)
    return changed("it takes no pushes") if answer["changed"] else unchanged("it takes no pushes already")


def take_down(site: HarborSite, host: Host) -> Outcome:
    """Remove the old Harbor's containers; its directories stay as they are."""
    del site
    answer = _act(host, "down", timeout=600.0, directory=noted(host)["directory"])
    return changed(f"{answer['removed']} containers") if answer["changed"] else unchanged("it is down")


def allow_writes(site: HarborSite, target: Host) -> Outcome:
    """Take read-only mode out of the copy in the pair; an old Harbor that was read-only before is not adopted."""
    update = "UPDATE properties SET v = 'false' WHERE k = 'read_only' AND v = 'true' RETURNING k"
    rows = execute(site, target, update, database=site.postgres.database)
    return changed("read-only mode ended") if rows else unchanged("it is not read-only")


def set_phase(site: HarborSite, host: Host, *, phase: str) -> Outcome:
    """Note on the node how far the adoption has come; to note again where it stands is to ask whether it does.

    Raises:
        NotAtThisPoint: it does not come from there.
    """
    del site
    answer = _act(host, "phase", timeout=60.0, phase=phase)
    return changed(phase) if answer["changed"] else unchanged(phase)


def put_back(site: HarborSite, host: Host) -> Outcome:
    """Put the old Harbor back to service, by the command that an operator would use."""
    del site
    _act(host, "back", timeout=700.0)
    return changed("the old Harbor is back, and takes pushes")


def _volume(found: HarborFound) -> str:
    return (found.data_volume or "").rstrip("/")
