"""Harbor's jobservice: `python3 -m miniharbor.jobservice`.

It learns the database's address from core, once, and keeps it until it is restarted. Jobs lie in the shared
Redis, so the jobservice of either node takes them.
"""

import json
import logging
import os
import sys
import threading
import time
import uuid
from typing import Any

import psycopg2
import redis

from .client import call
from .context import connect_redis
from .database import Database
from .gcjob import Collector
from .settings import DatabaseSettings, RedisSettings
from .web import Refused, Request, Response, Routes, Server, heed_sigterm, setup_logging

log = logging.getLogger("jobservice")
NAMESPACE = "{harbor_job_service_namespace}"
QUEUE = f"{NAMESPACE}:jobs:GARBAGE_COLLECTION"


class Worker:
    """Takes jobs from Redis and tells core how they end."""

    def __init__(
        self, client: redis.Redis, database: Database, core_url: str, secret: str, registryctl: str
    ) -> None:
        self._client = client
        self._database = database
        self._core_url = core_url
        self._secret = secret
        self._registryctl = registryctl

    def _report(self, task: int, status: str, message: str = "") -> None:
        headers = {"Authorization": f"Harbor-Secret {self._secret}"}
        body = json.dumps({"status": status, "message": message}).encode()
        target = f"/service/notifications/tasks/{task}"
        try:
            answer = call(self._core_url, "POST", target, headers=headers, body=body, timeout=30)
            answer.read()
            if answer.status != 200:
                log.error("core refused the status of task %s: %s", task, answer.status)
        except OSError as error:
            log.error("the status of task %s did not reach core: %s", task, error)

    def run_one(self, job: dict[str, Any]) -> None:
        """Run one job to its end and report."""
        task = int(job["task"])
        self._report(task, "Running")
        try:
            freed = Collector(self._database, self._registryctl, job["parameters"]).run()
        except (OSError, psycopg2.Error, RuntimeError) as error:
            log.exception("job %s", job["id"])
            self._report(task, "Error", str(error))
            return
        self._report(task, "Success", f"{freed} blobs deleted")

    def loop(self) -> None:
        """Wait for jobs for ever."""
        while True:
            try:
                taken = self._client.brpop([QUEUE], timeout=5)
                if taken:
                    self.run_one(json.loads(taken[1]))
            except redis.RedisError as error:
                log.warning("queue: %s", error)
                # Asking again is the condition: brpop waits for a Redis that is there, and fails at once without.
                time.sleep(1)


def database_from_core(core_url: str, secret: str) -> DatabaseSettings:
    """Ask core where the database is. Raises OSError or RuntimeError: then jobservice ends."""
    headers = {"Authorization": f"Harbor-Secret {secret}"}
    answer = call(core_url, "GET", "/api/v2.0/internalconfig", headers=headers, timeout=10)
    body = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"failed to load configurations, status {answer.status}")
    return DatabaseSettings.from_config({key: item["value"] for key, item in json.loads(body).items()})


def _routes(client: redis.Redis, secret: str) -> Routes:
    pool = uuid.uuid4().hex

    def stats(request: Request) -> Response:
        client.ping()
        return Response.of(
            {"worker_pools": [{"worker_pool_id": pool, "concurrency": 1, "status": "Healthy"}]}
        )

    def submit(request: Request) -> Response:
        if request.headers.get("Authorization") != f"Harbor-Secret {secret}":
            raise Refused(401, "UNAUTHORIZED", "unauthorized")
        job = request.json()
        client.lpush(QUEUE, json.dumps(job))
        return Response.of({"job": {"id": job["id"], "status": "Pending"}}, status=202)

    routes = Routes()
    routes.add("GET", "/api/v1/stats", stats)
    routes.add("POST", "/api/v1/jobs", submit)
    return routes


def main() -> None:
    """Serve for ever; without core's configuration end with a panic, as Harbor's does."""
    setup_logging(os.environ.get("LOG_LEVEL") or "info")
    heed_sigterm()
    env = os.environ
    try:
        database = Database(database_from_core(env["CORE_URL"], env["CORE_SECRET"]))
        database.ping()
    except (OSError, RuntimeError, psycopg2.Error) as error:
        sys.exit(f"panic: failed to load configuration: {error}")
    client = connect_redis(RedisSettings.from_url(env["JOB_SERVICE_POOL_REDIS_URL"]))
    worker = Worker(client, database, env["CORE_URL"], env["CORE_SECRET"], env["REGISTRY_CONTROLLER_URL"])
    threading.Thread(target=worker.loop, daemon=True, name="worker").start()
    routes = _routes(client, env["JOBSERVICE_SECRET"])

    def answer(request: Request) -> Response:
        handler, arguments = routes.resolve(request.method, request.path)
        return handler(request, **arguments)

    log.info("jobservice uses the database at %s", database.settings.host)
    Server(int(env.get("PORT") or 8080), answer).serve_forever()


if __name__ == "__main__":
    main()
