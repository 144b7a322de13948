"""The admin calls, outside of OSS's name space: faults, counters, damage at rest, retention policy.

GET    /_faults     the rules with their hits
POST   /_faults     one rule, or a list of rules, added
DELETE /_faults     no more rules
GET    /_requests   operation → status → count
DELETE /_requests   start counting from zero
POST   /_damage     {"key": …, "offset": 0}: flip a byte of an object at rest, its checksums stay
POST   /_bucket     {"versioning": "Enabled"|"", "worm_days": 0…}
GET    /_health     {"objects": …, "bytes": …, "uploads": …}
"""

import ipaddress
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lab.oss.answers import Answer, document, elements
from lab.oss.bucket import set_worm
from lab.oss.faults import FaultPlan, parse_fault
from lab.oss.request import Request
from lab.oss.store import BucketStore

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Control:
    """What the admin calls work on, and from where they are allowed."""

    store: BucketStore
    faults: FaultPlan
    networks: tuple[Network, ...]


def serve(control: Control, address: str, request: Request) -> Answer:
    """Answer one admin call; 403 from an address that may not."""
    if not _allowed(control, address):
        return _json({"error": f"admin calls are not allowed from {address}"}, 403)
    call = _CALLS.get((request.method, request.bucket))
    if call is None:
        return _json({"error": f"no admin call {request.method} /{request.bucket}"}, 404)
    try:
        content = request.body.all()
        return _json(call(control, json.loads(content) if content else {}))
    except (ValueError, TypeError, KeyError) as error:
        return _json({"error": str(error)}, 400)


def _allowed(control: Control, address: str) -> bool:
    peer = ipaddress.ip_address(address.removeprefix("::ffff:"))
    return any(peer in network for network in control.networks)


def _json(value: object, status: int = 200) -> Answer:
    return Answer(status, {"Content-Type": "application/json"}, json.dumps(value).encode())


def _list_faults(control: Control, _body: Any) -> object:
    return control.faults.describe()


def _add_faults(control: Control, body: Any) -> object:
    for fault in [parse_fault(rule) for rule in (body if isinstance(body, list) else [body])]:
        control.faults.add(fault)
    return control.faults.describe()


def _clear_faults(control: Control, _body: Any) -> object:
    control.faults.set([])
    return []


def _counts(control: Control, _body: Any) -> object:
    return control.faults.counts()


def _reset_counts(control: Control, _body: Any) -> object:
    control.faults.reset_counts()
    return {}


def _damage(control: Control, body: Any) -> object:
    entry = control.store.catalog.get(body["key"])
    if entry is None:
        raise ValueError(f"no object {body['key']!r}")
    control.store.disk.flip(entry.segments, int(body.get("offset", 0)))
    return {"damaged": entry.key}


def _bucket(control: Control, body: Any) -> object:
    if "worm_days" in body:
        control.store.catalog.set_setting("worm", None)
        if body["worm_days"]:
            set_worm(control.store, int(body["worm_days"]), "Locked")
    if "versioning" in body:
        xml = document("VersioningConfiguration", elements({"Status": body["versioning"]})).decode()
        control.store.catalog.set_setting("versioning", xml if body["versioning"] else None)
    return body


def _health(control: Control, _body: Any) -> object:
    count, size, uploads = control.store.catalog.totals()
    return {"objects": count, "bytes": size, "uploads": uploads}


_CALLS: dict[tuple[str, str], Callable[[Control, Any], object]] = {
    ("GET", "_faults"): _list_faults,
    ("POST", "_faults"): _add_faults,
    ("DELETE", "_faults"): _clear_faults,
    ("GET", "_requests"): _counts,
    ("DELETE", "_requests"): _reset_counts,
    ("POST", "_damage"): _damage,
    ("POST", "_bucket"): _bucket,
    ("GET", "_health"): _health,
}
