"""The watcher as a process: `harbor-ha watch`, alone or beside `harbor-ha serve`."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence

from blocks import HarborSite, load_site
from blocks.problems import SiteUnknown
from blocks.store import copy_path
from deployments.watch.metrics import serve_metrics
from deployments.watch.watcher import Watcher, watched
from tasks.observation.beacon import BEAT_S

logger = logging.getLogger("harbor_ha.watch")


def saved(names: Sequence[str]) -> list[HarborSite]:
    """Load sites; one that is gone does not take the watch of the others along.

    Raises:
        SiteUnknown: none of them was saved.
    """
    found, unknown = [], []
    for name in names:
        try:
            found.append(load_site(name))
        except SiteUnknown as error:
            unknown.append(error)
            logger.critical("site %s is not watched: %s", name, error)
    if unknown and not found:
        raise unknown[0]
    return found


def end_when_applied(watcher: Watcher, names: Sequence[str], every_s: float = 15.0) -> None:
    """End the watcher when a site was applied anew: whoever runs it starts it again, with what is said now."""
    before = [_applied_at(name) for name in names]

    def wait() -> None:
        while not watcher.ended.wait(every_s):
            if [_applied_at(name) for name in names] != before:
                logger.warning("a site was applied anew: the watcher begins anew")
                watcher.stop()

    threading.Thread(target=wait, daemon=True).start()


def _applied_at(name: str) -> float:
    try:
        return copy_path(name).stat().st_mtime
    except OSError:
        return 0.0


def end_with_input(watcher: Watcher) -> None:
    """End the watcher with its standard input: whoever started it is gone, however that happened."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        watcher.stop()

    threading.Thread(target=wait, daemon=True).start()


def watch_sites(
    names: Sequence[str],
    address: str,
    port: int,
    beat_s: float = BEAT_S,
    *,
    with_input: bool = False,
    calls: bool = True,
) -> None:
    """Watch saved sites until this process is told to stop.

    Args:
        names: the sites.
        address: where `/metrics` listens.
        port: likewise; 0: no metrics.
        beat_s: seconds between two lines of a node.
        with_input: end with the standard input as well.
        calls: start failovers; without, `/metrics` is all that it does for them.

    Raises:
        SiteUnknown: none of the sites was ever saved.
    """
    watcher = Watcher([watched(site, beat_s, calls=calls) for site in saved(names)])
    end_when_applied(watcher, names)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: watcher.stop())
    if with_input:
        end_with_input(watcher)
    if port:
        serve_metrics(watcher, address, port)
    logger.warning("watching %s", ", ".join(names))
    watcher.run()
