"""A node's Harbor comes back to its clients beside its own database, of which it needs nothing: the primary has it."""

from contextlib import AbstractContextManager

from flows.machinery.beside import Beside, first_of
from flows.machinery.operation import Operation
from flows.machinery.traffic import jobs_left_behind
from tasks.balancer import steps as balancer
from tasks.harbor import steps as harbor
from tasks.harbor.back import JOBS
from tasks.outcome import Outcome

# Three looks of core, which looks every ten seconds.
_ALL_HEALTHY_S = 30.0
# Its core has just answered, and the data waits for what is done here.
_SERVES_S = 5.0


def harbor_beside(work: Operation, node: str, primary: str) -> AbstractContextManager[Beside]:
    """Have the node's Harbor run with the primary's database while the node's own comes back."""
    site = work.run.site
    nodes = [node] if site.node(node).runs_harbor else []
    address = site.node(primary).address
    by = work.in_time()
    return work.run.beside(harbor.bring_back, nodes, required=False, database_host=address, by=by)


def serve_meanwhile(work: Operation, node: str, copied: Beside, harbors: Beside) -> None:
    """Serve the node as soon as its Harbor runs, if that is before its data has come: a copy may take an hour.

    Where the data comes first, it goes on with that: a site without a standby comes before half of its Harbors. What
    fails here is done when the data is back.
    """
    first_of(copied, harbors)
    if copied.ended or not harbors.ended:
        return
    harbors.wait()
    if not isinstance(harbors.get(node), Outcome):
        return
    _, failed = work.run.try_each(harbor.wait_serving, [node], timeout=_SERVES_S)
    if not failed:
        work.run.try_each(balancer.admit, [node], by=work.in_time())


def serve_again(work: Operation, node: str, primary: str, harbors: Beside) -> None:
    """Bring the node's Harbor back behind the load balancer, if it is not there, and all of it to health.

    Args:
        work: the rejoin.
        node: the node.
        primary: whose database its Harbor uses.
        harbors: what became of its Harbor beside the work on the data; empty where none runs.
    """
    left: list[str] = []
    for where, result in harbors.items():
        failed = follow_again(work, where, primary, result)
        if failed:
            left.append(f"the Harbor of {where} does not follow: {failed}")
            continue
        work.run.on(harbor.wait_serving, where)
        work.run.on(balancer.admit, where, by=work.in_time())
        left += complete(work, where, primary)
    if left:
        work.sections.setdefault("Left behind", []).extend(left)


def follow_again(work: Operation, node: str, primary: str, result: Outcome | BaseException) -> str:
    """Bring the node's Harbor back once more if that has failed: where writes wait for a standby, core waited too.

    Returns:
        why it does not follow; empty when it does.
    """
    if isinstance(result, Outcome):
        return ""
    address = work.run.site.node(primary).address
    _, failed = work.run.try_each(harbor.bring_back, [node], database_host=address, by=work.in_time())
    return failed.get(node, "")


def complete(work: Operation, node: str, primary: str) -> list[str]:
    """Start what no client waits for, and see that all of the node's Harbor is healthy; return what is not."""
    address = work.run.site.node(primary).address
    done, failed = work.run.try_each(harbor.complete, [node], database_host=address, by=work.in_time())
    late = {where: outcome.data[JOBS] for where, outcome in done.items() if outcome.data[JOBS]}
    # Core looks every ten seconds and keeps the answer: that does not hold the node back either.
    _, ill = work.run.try_each(harbor.wait_healthy, [node], timeout=_ALL_HEALTHY_S)
    return [
        *jobs_left_behind({**late, **failed}),
        *(f"{name} serves, but not all of its Harbor is healthy: {error}" for name, error in ill.items()),
    ]
