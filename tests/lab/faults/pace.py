"""Limits of seconds on machines of different speed."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

# Core answered 1.5 s after its start on the machine on which the limits were set (a push 7.5 s after the call).
# One on which the same failover takes 12 s needs 3 s for it: both nodes of the lab share two cores.
REFERENCE_S = 1.5
_MOST = 3.0
_RESTART_CORE = """docker restart -t 0 harbor-core >/dev/null
address=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' harbor-core)
for attempt in $(seq 600); do
    curl -fs -m 2 "http://$address:8080/api/v2.0/ping" >/dev/null && exit 0
    sleep 0.05
done
exit 1"""


def best_of_two(limit: float, attempt: Callable[[], float], shell: Callable[[str, str], str]) -> None:
    """Run an attempt, and once more when it took longer than its limit; the better one counts.

    The limit is for a machine of the pace on which it was set. On a slower or busier one it grows with what Docker
    alone needs for the core of both nodes, up to three times: nothing of ours is in that measure.

    Args:
        limit: seconds.
        attempt: returns the seconds that it took.
        shell: runs a script on a node of the lab.
    """
    seconds: list[float] = []
    while len(seconds) < 2 and (not seconds or seconds[-1] > limit):
        seconds.append(attempt())
    if min(seconds) <= limit:
        return
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
