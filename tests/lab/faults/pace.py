"""Limits of seconds on machines of different speed."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext

from lab.harbor.app.loading import START_S

# Until a core answers: what a real one takes at most, and the miniature with it, where the machine is quick enough for
# everything else. What is above it is the machine's. It is measured beside the scene's load: without it a machine
# passed for quick on which the failover was not.
REFERENCE_S = START_S[1]
# A slow machine explains twice the time; what takes longer than that is ours.
_MOST = 2.0
# With the reload that makes nginx find core at its new address: without it the next test meets 502.
_RESTART_CORE = """docker restart -t 0 harbor-core >/dev/null
address=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' harbor-core)
for attempt in $(seq 600); do
    curl -fs -m 2 "http://$address:8080/api/v2.0/ping" >/dev/null && exec docker exec nginx nginx -s reload
    sleep 0.05
done
echo "core does not answer after its restart" >&2
exit 1"""


def best_of_two(
    limit: float,
    attempt: Callable[[], float],
    shell: Callable[[str, str], str],
    load: AbstractContextManager[object] | None = None,
) -> None:
    """Run an attempt, and once more when it took longer than its limit; the better one counts.

    The limit is for a machine of the pace on which it was set. On a slower or busier one it grows with what Docker
    alone needs for the core of both nodes, up to twice: nothing of ours is in that measure.

    Args:
        limit: seconds.
        attempt: returns the seconds that it took.
        shell: runs a script on a node of the lab.
        load: what the machine had to do beside the attempts; it is measured with that.
    """
    seconds: list[float] = []
    while len(seconds) < 2 and (not seconds or seconds[-1] > limit):
        seconds.append(attempt())
    if min(seconds) <= limit:
        return
    with load or nullcontext():
        pace = _seconds_for_both_cores(shell)
    allowed = limit * min(_MOST, max(1.0, pace / REFERENCE_S))
    assert min(seconds) <= allowed, (
        f"took {seconds} s; allowed are {limit} s, {allowed:.1f} s on this machine, "
        f"where Docker restarts both cores in {pace:.1f} s"
    )


def _seconds_for_both_cores(shell: Callable[[str, str], str]) -> float:
    begin = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda node: shell(node, _RESTART_CORE), ("node-a", "node-b")))
    return time.monotonic() - begin
