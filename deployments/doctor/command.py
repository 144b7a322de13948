"""The doctor's round: one link after the other, in the order in which a failover by itself needs them."""

from collections.abc import Iterator

import httpx

from blocks import HarborSite
from blocks.prefect_api import PrefectAddressMissing, prefect_api
from deployments.doctor import looks
from deployments.doctor.links import Holds, Link
from deployments.runs import RunRefused
from flows.rules.table import FactsTooOld

PREFECT_BROKEN = "systemctl status prefect-server; until then: harbor-ha run failover … --without-prefect"


def examine(site: HarborSite, metrics_port: int, prometheus: str, alertmanager: str) -> Iterator[Link]:
    """Try every link and yield what was found; nothing on the site is changed.

    A failover is called, as a dry run by us and, where Alertmanager is named, as a real one by it; on a site that is
    sound both do nothing.

    Args:
        site: the site.
        metrics_port: where the watcher tells its numbers on loopback.
        prometheus: its address; empty: it is not asked.
        alertmanager: its address; empty: it is not asked.
    """
    primary = ""
    try:
        found, primary = looks.look_at_nodes(site)
        yield from found
    except FactsTooOld as error:
        yield Link("site", Holds.BROKEN, str(error), "harbor-ha status")
    yield looks.look_at_fence(site)
    yield looks.look_at_watcher(site.name, metrics_port)
    try:
        with prefect_api(timeout=10) as api:
            api.get("health").raise_for_status()
            yield from looks.look_at_prefect(api, site)
            yield from _drills(api, site.name, primary, prometheus, alertmanager)
    except (httpx.HTTPError, PrefectAddressMissing) as error:
        yield Link("Prefect", Holds.BROKEN, f"does not answer ({type(error).__name__})", PREFECT_BROKEN)
    yield from looks.look_at_backup(site)
    yield looks.look_at_disk()


def _drills(api: httpx.Client, site: str, primary: str, prometheus: str, alertmanager: str) -> Iterator[Link]:
    if not primary:
        yield Link("a call", Holds.WARNING, "not tried: the site is not sound, and a failover would act")
        return
    try:
        yield looks.drill_by_call(api, site, primary)
    except RunRefused as refused:
        yield Link("a call", Holds.BROKEN, str(refused), "systemctl status harbor-ha-runner")
    if prometheus:
        yield looks.look_at_prometheus(prometheus.rstrip("/"))
    else:
        yield Link("Prometheus", Holds.NOT_SET_UP, "not asked (--prometheus http://127.0.0.1:9090)")
    if alertmanager:
        yield looks.drill_by_alert(api, alertmanager.rstrip("/"), site, primary)
    else:
        yield Link("Alertmanager", Holds.NOT_SET_UP, "not asked (--alertmanager http://127.0.0.1:9093)")
