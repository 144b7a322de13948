"""A load of Harbor's clients: small images pushed through the load balancer, each on a connection of its own."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blocks.site_file import read_site_file
from tasks.errors import HarborHaError
from tasks.harbor.api import HarborApi
from tasks.harbor.oci import Registry, make_image
from tasks.harbor.web import Endpoint, through_balancer

PROJECT = "faults"
REPOSITORY = f"{PROJECT}/load"
CLIENTS = 2
_PAUSE_S = 0.25
# Seconds for one request; a client gives up what hangs on a dead node, and tries again.
_PATIENCE_S = 1.5


def push(site_file: str, log: str) -> None:
    """Push until killed.

    Args:
        site_file: names the load balancer.
        log: gets a line for each push: when it began, when it ended, and the digest or the failure.
    """
    endpoint = through_balancer(read_site_file(Path(site_file)))
    guard = threading.Lock()
    with Path(log).open("a", encoding="utf-8") as file:

        def note(line: dict[str, Any]) -> None:
            with guard:
                file.write(json.dumps(line) + "\n")
                file.flush()

        threads = [
            threading.Thread(target=_push_as_one, args=(endpoint, note, f"c{client}"), daemon=True)
            for client in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _push_as_one(endpoint: Endpoint, note: Callable[[dict[str, Any]], None], client: str) -> None:
    made = False
    while True:
        begun = time.time()
        line: dict[str, Any] = {"begun": begun}
        try:
            if not made:
                with HarborApi(endpoint, timeout=_PATIENCE_S) as api:
                    api.ensure_project(PROJECT)
                made = True
            image = make_image(f"{client} {begun}".encode())
            with Registry(endpoint, timeout=_PATIENCE_S) as registry:
                line["digest"] = registry.push(REPOSITORY, f"{client}-{begun:.6f}", image)
        except HarborHaError as error:
            line["failed"] = str(error)[:300]
        line["ended"] = time.time()
        note(line)
        time.sleep(_PAUSE_S)
