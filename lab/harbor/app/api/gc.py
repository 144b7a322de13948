"""/system/gc: garbage collection is asked of jobservice, and jobservice reports back."""

import json
import uuid
from typing import Any

from .. import config
from ..client import call
from ..context import Core
from ..database import Row
from ..identity import identify, require_admin
from ..web import Refused, Request, Response, Routes

API = "/api/v2.0"
VENDOR = "GARBAGE_COLLECTION"
FINAL = ("Success", "Error", "Stopped")


def _present(row: Row) -> dict[str, Any]:
    parameters = row["extra_attrs"] or {}
    return {
        "id": row["id"],
        "job_name": VENDOR,
        "job_kind": row["trigger"],
        "job_status": row["status"],
        "job_parameters": json.dumps({k: v for k, v in parameters.items() if k != "redis_url_reg"}),
        "schedule": {"type": row["trigger"].title()},
        "creation_time": row["start_time"],
        "update_time": row["update_time"],
    }


def history(core: Core, request: Request) -> Response:
    """Past and running collections, youngest first."""
    require_admin(core, request)
    limit, offset = request.page()
    with core.database.session() as session:
        total = session.value("SELECT count(*) FROM execution WHERE vendor_type = %s", (VENDOR,))
        rows = session.rows(
            "SELECT * FROM execution WHERE vendor_type = %s ORDER BY id DESC LIMIT %s OFFSET %s",
            (VENDOR, limit, offset),
        )
    return Response.of([_present(row) for row in rows], headers={"X-Total-Count": str(total)})


def one(core: Core, request: Request, number: str) -> Response:
    """One collection."""
    require_admin(core, request)
    with core.database.session() as session:
        row = session.row("SELECT * FROM execution WHERE vendor_type = %s AND id = %s", (VENDOR, int(number)))
    if row is None:
        raise Refused(404, "NOT_FOUND", f"gc {number} not found")
    return Response.of(_present(row))


def get_schedule(core: Core, request: Request) -> Response:
    """The schedule, an empty object when there is none."""
    require_admin(core, request)
    with core.database.session() as session:
        row = session.row("SELECT * FROM schedule WHERE vendor_type = %s", (VENDOR,))
    return Response.of(
        {"id": row["id"], "schedule": {"type": row["cron_type"], "cron": row["cron"]}} if row else {}
    )


def schedule(core: Core, request: Request) -> Response:
    """Start a collection now (`Manual`), or store a schedule."""
    require_admin(core, request)
    asked = request.json()
    kind = (asked.get("schedule") or {}).get("type", "")
    parameters = {
        "delete_untagged": False,
        "dry_run": False,
        "time_window": 2,  # hours that a young blob is left alone
        **(asked.get("parameters") or {}),
        # Harbor embeds this address, password included, in the row: a dump of the database carries it.
        "redis_url_reg": core.settings.redis_url_reg,
    }
    if kind == "Manual":
        return Response(201, headers={"Location": f"{API}/system/gc/{_start(core, parameters)}"})
    with core.database.session() as session:
        session.run("DELETE FROM schedule WHERE vendor_type = %s", (VENDOR,))
        if kind not in ("", "None"):
            session.run(
                "INSERT INTO schedule (vendor_type, vendor_id, cron, cron_type, callback_func_name,"
                " callback_func_param) VALUES (%s, -1, %s, %s, 'GC_CALLBACK', %s)",
                (VENDOR, asked["schedule"].get("cron", ""), kind, json.dumps(parameters)),
            )
    return Response(200 if request.method == "PUT" else 201)


def _start(core: Core, parameters: dict[str, Any]) -> int:
    job = uuid.uuid4().hex[:24]
    with core.database.session() as session:
        execution = session.value(
            "INSERT INTO execution (vendor_type, vendor_id, status, trigger, extra_attrs)"
            " VALUES (%s, -1, 'Pending', 'MANUAL', %s) RETURNING id",
            (VENDOR, json.dumps(parameters)),
        )
        task = session.value(
            "INSERT INTO task (execution_id, vendor_type, job_id, status) VALUES (%s, %s, %s, 'Pending')"
            " RETURNING id",
            (execution, VENDOR, job),
        )
    message = {"name": VENDOR, "id": job, "task": task, "parameters": parameters}
    headers = {"Authorization": f"Harbor-Secret {core.settings.jobservice_secret}"}
    body = json.dumps(message).encode()
    answer = call(
        core.settings.jobservice_url, "POST", "/api/v1/jobs", headers=headers, body=body, timeout=10
    )
    answer.read()
    if answer.status != 202:
        raise Refused(500, "UNKNOWN", f"jobservice answered {answer.status}")
    return int(execution)


def task_hook(core: Core, request: Request, number: str) -> Response:
    """Jobservice tells how a task goes. Not exempt from read-only mode: the report is then refused."""
    who = identify(core, request)
    if who.name != "harbor-internal":
        raise Refused(401, "UNAUTHORIZED", "for jobservice only")
    config.refuse_when_read_only(core)
    told = request.json()
    status, message = str(told["status"]), str(told.get("message", ""))
    ended = "now()" if status in FINAL else "NULL"
    with core.database.session() as session:
        execution = session.value(
            f"UPDATE task SET status = %s, status_message = %s, update_time = now(), end_time = {ended},"
            " start_time = coalesce(start_time, now()) WHERE id = %s RETURNING execution_id",
            (status, message, int(number)),
        )
        session.run(
            f"UPDATE execution SET status = %s, status_message = %s, update_time = now(), end_time = {ended}"
            " WHERE id = %s",
            (status, message, execution),
        )
    return Response()


def register(routes: Routes) -> None:
    """Add this module's routes."""
    number = r"(?P<number>\d+)"
    routes.add("GET", f"{API}/system/gc", history)
    routes.add("GET", f"{API}/system/gc/schedule", get_schedule)
    routes.add("POST", f"{API}/system/gc/schedule", schedule)
    routes.add("PUT", f"{API}/system/gc/schedule", schedule)
    routes.add("GET", f"{API}/system/gc/{number}", one)
    routes.add("POST", f"/service/notifications/tasks/{number}", task_hook)
