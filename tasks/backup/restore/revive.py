"""What a restored database still believes of a Harbor that is gone: read-only, running jobs, old caches."""

import json
from typing import Any

from blocks import HarborSite
from tasks.backup.restore.application import as_application
from tasks.backup.restore.done import SETTLED, STARTED, done, note
from tasks.backup.restore.on_node import flush_redis
from tasks.backup.server import query
from tasks.errors import HarborHaError
from tasks.harbor.api import HarborApi
from tasks.harbor.migrate import stop_writers
from tasks.harbor.web import HarborRefused, HarborUnreachable, through_node
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.outcome import Outcome, changed, unchanged

_FLUSH_REDIS = node_program(flush_redis)

# A schedule's own execution runs for as long as the schedule exists; jobservice finds its schedules by it.
_SETTLE = """
UPDATE properties SET v = 'false' WHERE k = 'read_only' AND v <> 'false';
\\echo read_only :ROW_COUNT
"""
_SETTLE_JOBS = """
UPDATE task SET status = 'Error' WHERE status IN ('Pending', 'Scheduled', 'Running')
  AND execution_id NOT IN (SELECT id FROM execution WHERE vendor_type = 'SCHEDULER');
\\echo tasks :ROW_COUNT
UPDATE execution SET status = 'Error' WHERE status IN ('Pending', 'Running') AND vendor_type <> 'SCHEDULER';
\\echo executions :ROW_COUNT
"""
_TABLES = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public';"


class RedisRefused(HarborHaError):
    """Redis could not be emptied; Harbor would trust what it says of blobs that are not there."""


def harbor_runs(host: Host) -> bool:
    """Whether a Harbor runs on the node; whose it is only `done` knows."""
    names = host.run(["docker", "ps", "--format", "{{.Names}}"], check=False).stdout.split()
    return "harbor-core" in names


def stop_stray(site: HarborSite, host: Host, *, of: str) -> Outcome:
    """Stop a Harbor that this restore has not started: it would write into the database while that is loaded.

    Args:
        of: which restore, as `done` knows it.

    Raises:
        HarborHaError: it cannot be stopped.
    """
    if not harbor_runs(host):
        return unchanged("no Harbor runs")
    if STARTED in done(site, host, of):
        return unchanged("the Harbor that runs is this restore's")
    stopped = stop_writers(site, host)
    if harbor_runs(host):
        raise HarborHaError(
            "A Harbor of before this restore runs here and does not stop.",
            where=host.name,
            meaning="It would write into the database while it is loaded. Nothing was restored.",
            remedy="Stop its containers (`docker ps`), and run the restore again.",
        )
    return stopped


def clear_stale_state(site: HarborSite, host: Host, *, of: str) -> Outcome:
    """Take back what was true only at the time of the dump. Must run while Harbor is down.

    A dump made in read-only mode restores a read-only Harbor, and jobs that ran then would be shown as
    running for ever: nobody will report their end. Once only: what is under way later is Harbor's own.

    Args:
        of: which restore, as `done` knows it.
    """
    if SETTLED in done(site, host, of):
        return unchanged("it was settled by an earlier run of this restore")
    # It may have come back with the machine since the beginning.
    stop_stray(site, host, of=of)
    database = site.postgres.database
    with as_application(site, host) as server:
        tables = {row[0] for row in query(host, server, database, _TABLES)}
        script = _SETTLE if "properties" in tables else ""
        if {"task", "execution"} <= tables:
            script += _SETTLE_JOBS
        counts = [row[0].split() for row in query(host, server, database, script)]
    note(site, host, of, SETTLED)
    settled = [f"{count} {name}" for name, count in counts if count != "0"]
    return (
        changed(f"settled {', '.join(settled)}")
        if settled
        else unchanged("nothing was under way at the dump")
    )


def ask_redis(site: HarborSite, host: Host) -> Outcome:
    """Ask before the first change whether Redis can be emptied in the end; nothing in it is changed.

    Raises:
        RedisRefused: wrong password, not reachable from the node, or it forbids what emptying takes.
    """
    _speak(site, host, look=True)
    return unchanged("Redis can be emptied")


def empty_caches(site: HarborSite, host: Host, *, of: str) -> Outcome:
    """Empty the site's Redis databases; must run while Harbor is down.

    They name blobs that may not be there, and jobs of a database that is gone.

    Args:
        of: which restore, as `done` knows it.

    Raises:
        RedisRefused: wrong password, not reachable from the node, or it forbids what emptying takes.
    """
    if STARTED in done(site, host, of):
        return unchanged("this restore has started Harbor before; what is cached is its own")
    stop_stray(site, host, of=of)
    keys = sum(_speak(site, host, look=False).values())
    return changed(f"removed {keys} keys of the old Harbor") if keys else unchanged("Redis is empty")


def _speak(site: HarborSite, host: Host, *, look: bool) -> dict[str, int]:
    redis = site.redis
    databases = sorted({0, redis.registry_db, redis.jobservice_db, redis.chartmuseum_db, redis.trivy_db})
    given: dict[str, Any] = {
        "host": redis.host,
        "port": redis.port,
        "password": redis.password.get_secret_value(),
        "databases": databases,
        "look": look,
    }
    try:
        found: dict[str, int] = host.python(_FLUSH_REDIS, given, timeout=300)
    except HarborHaError as error:
        raise RedisRefused(
            f"The databases of Redis at {redis.host} cannot be emptied ({error.what.splitlines()[-1][:200]}).",
            where=host.name,
            remedy="Check `redis` in the site file; its user must be allowed FLUSHDB, or SCAN and UNLINK.",
        ) from None
    return found


def resave_schedule(site: HarborSite, host: Host) -> Outcome:
    """Save the schedule of garbage collection again: it carries the address and password of Redis.

    Best effort: a Harbor whose schedule cannot be saved serves images all the same.
    """
    path = "/api/v2.0/system/gc/schedule"
    try:
        with HarborApi(through_node(site, host.name)) as api:
            headers = api.session.endpoint.authorization()
            found = api.session.request("GET", path, headers=headers)
            body = found.json() if found.status == 200 and found.body.strip() else {}
            schedule = (body or {}).get("schedule") or {}
            if schedule.get("type") in (None, "", "None", "Manual"):
                return unchanged("garbage collection is not scheduled")
            wanted = {"schedule": schedule, "parameters": _parameters(body)}
            answer = api.session.request(
                "PUT", path, _json(wanted), headers | {"Content-Type": "application/json"}
            )
            if answer.status >= 300:
                return unchanged(f"its schedule could not be saved ({answer.status}); save it in the UI")
    except (HarborUnreachable, HarborRefused, ValueError) as error:
        return unchanged(f"its schedule could not be saved ({error}); save it in the UI")
    return changed(f"saved its schedule again: {schedule.get('type')} {schedule.get('cron', '')}".rstrip())


def _parameters(body: dict[str, Any]) -> dict[str, Any]:
    found = json.loads(body.get("job_parameters") or "{}")
    # Redis's address is what must be made anew.
    return {key: value for key, value in found.items() if not key.startswith("redis")}


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
