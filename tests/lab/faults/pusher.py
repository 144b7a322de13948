"""A load of Harbor's clients: small images pushed through the load balancer, each on a connection of its own."""

import json
import time
from pathlib import Path
from typing import Any

from blocks.site_file import read_site_file
from tasks.errors import HarborHaError
from tasks.harbor.api import HarborApi
from tasks.harbor.oci import Registry, make_image
from tasks.harbor.web import through_balancer

PROJECT = "faults"
REPOSITORY = f"{PROJECT}/load"
_PAUSE_S = 0.15
# A client gives up a push that hangs on a dead node, and tries again.
_PATIENCE_S = 3.0


def push(site_file: str, log: str) -> None:
    """Push until killed.

    Args:
        site_file: names the load balancer.
        log: gets a line for each push: when it began, when it ended, and the digest or the failure.
    """
    site = read_site_file(Path(site_file))
    endpoint = through_balancer(site)
    made = False
    with Path(log).open("a", encoding="utf-8") as file:
        while True:
            begun = time.time()
            line: dict[str, Any] = {"begun": begun}
            try:
                if not made:
                    with HarborApi(endpoint, timeout=_PATIENCE_S) as api:
                        api.ensure_project(PROJECT)
                    made = True
                image = make_image(f"{begun}".encode())
                with Registry(endpoint, timeout=_PATIENCE_S) as registry:
                    line["digest"] = registry.push(REPOSITORY, f"t{begun:.6f}", image)
            except HarborHaError as error:
                line["failed"] = str(error)[:300]
            line["ended"] = time.time()
            file.write(json.dumps(line) + "\n")
            file.flush()
            time.sleep(_PAUSE_S)
