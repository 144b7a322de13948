"""One scenario: load, samples, what was called; and the assertions that every scenario must end with."""

import contextlib
import json
import re
import time
from collections.abc import Iterator
from typing import Any

from flows.rules.admission import latest_record
from lab.faults.clients import Clients
from lab.faults.processes import Run
from lab.faults.pusher import REPOSITORY
from lab.faults.stage import Stage, read_lines, wait_for
from tasks.harbor.oci import Registry
from tasks.harbor.web import HarborRefused, through_balancer
from tasks.operation.files import LOCK
from tasks.postgres.facts import NodeFacts
from tasks.postgres.layout import STATE_DIR, slot_of
from tasks.postgres.on_node.pg_lost_commits import KEPT
from tasks.postgres.proof import replicate_marker
from tests.lab.faults import table
from tests.lab.faults.sampler import Sample, Sampler, overlaps, wait_for_sample


class Scene(Clients):
    """A scenario under load. Use it as a context; on leaving it, everything is checked and the row is kept.

    Args:
        stage: the site, a healthy pair.
        title: number and name, for the table.
        expected: what should come of it, for the table.
        pushes: load Harbor too; off where seconds of a busy machine are not what is tested.
        may_lose: asynchronous replication may lose writes here; they must be reported.
        two_writers: somebody made a second primary on purpose, which the samples must show.
        keep: the site's settings are a test's own.
    """

    def __init__(
        self,
        stage: Stage,
        title: str,
        expected: str,
        *,
        pushes: bool = True,
        may_lose: bool = False,
        two_writers: bool = False,
        keep: bool = False,
    ) -> None:
        super().__init__(stage)
        self.title, self.expected = title, expected
        self.may_lose, self.two_writers = may_lose, two_writers
        self._keep_settings = keep
        self.observed: list[str] = []
        self.seconds: float | None = None
        self.losses: list[dict[str, Any]] | None = None
        self.unknowable = False
        self.sampler: Sampler | None = None
        self._pushes = pushes

    def __enter__(self) -> "Scene":
        try:
            self._begin()
        except BaseException:
            self._end()
            raise
        return self

    def _end(self) -> None:
        self.end_loads()
        if self.sampler is not None:
            self.sampler.stop()

    def _begin(self) -> None:
        self.stage.restore(settings=not self._keep_settings)
        self.first_primary = self.stage.primary
        self.first_standby = self.stage.peer(self.first_primary)
        self.first_timeline = self.stage.timeline(self.first_primary)
        self.stage.check()
        self.begun = time.time()
        stamp = f"{self.begun:.0f}-{re.sub('[^a-z0-9]+', '-', self.title.lower())[:40]}"
        self.sampler = Sampler(self.stage.lab, self.stage.nodes)
        self.start_loads(stamp, pushes=self._pushes)
        wait_for_sample(self.sampler, self.begun)
        wait_for(lambda: bool(self.acknowledged()), 20.0, "the writer does not get through")
        if self._pushes:
            wait_for(lambda: bool(self.pushed()), 20.0, "no push gets through")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        try:
            if kind is None:
                self._finish()
        except BaseException as failure:
            error = failure
            raise
        finally:
            self._end()
            self._keep(error)

    # --- what happens in it ---

    def saw(self, text: str) -> None:
        """Add to what was observed."""
        self.observed.append(text)

    def flow(self, name: str, **parameters: Any) -> Run:
        """Call a flow, wait for its end and keep its seconds for the table."""
        run = self.stage.flow(name, **parameters).wait()
        if run.out.exists():
            self.seconds = run.seconds
        return run

    def diverge(self, writes: int) -> None:
        """Have the primary acknowledge so many writes that the standby never gets; the cut stays."""
        self.stage.lab.cut(self.first_primary, self.first_standby)
        # What was on its way arrives; what comes from now on does not.
        before = len(self.acknowledged())
        wait_for(lambda: len(self.acknowledged()) > before + writes, 30.0, "no writes")

    def rejoin(self, node: str) -> Run:
        """Bring a node back and remember what was reported as lost."""
        run = self.stage.flow("rejoin", node=node).wait(300)
        if "List what only the old primary had" in run.titles():
            # Only a run that found some keeps a list; the newest on the node may be of another scene.
            found = re.search(r"(\d+) commits? existed only", run.headline)
            listed = self.kept_losses(node) if found else []
            assert len(listed) == min(int(found[1]) if found else 0, KEPT), run.headline
            self.losses = (self.losses or []) + listed
            assert ("cannot be known" in run.headline) == self.unknowable, run.headline
        return run

    def describe(self, run: Run) -> str:
        """What a run said, whether it refused or not."""
        answer = run.answer
        return run.refusal if "error" in answer else str(answer["result"]["headline"])

    def wait_for_writes(self, count: int) -> None:
        """Wait until so many more writes are acknowledged."""
        before = len(self.acknowledged())
        wait_for(lambda: len(self.acknowledged()) >= before + count, 30.0, "no writes")

    def wait_until_settled_primary(self) -> None:
        """Wait until the primary no longer yields to another one, as it does in the first two minutes."""
        started = "SELECT extract(epoch FROM now() - pg_postmaster_start_time())"
        wait_for(lambda: float(self.stage.value(self.first_primary, started)) > 125, 130.0, "it is too young")

    def wait_until_deaf(self, node: str) -> None:
        """Wait until a standby's receiver is no longer fresh."""

        def deaf() -> bool:
            server = self.stage.facts(node).server
            return server is None or server.receiver is None or not server.receiver.fresh

        wait_for(deaf, 30.0, f"{node} still hears its primary")

    def accepted_on(self, node: str, after: float) -> bool:
        """Whether a node itself accepted a write that began after a moment."""
        return any(sample.node == node and sample.begun > after for sample in self._samples())

    def switched_to(self, node: str) -> None:
        """Check that a node is the primary, exactly one promotion later."""
        assert self.stage.primary == node
        assert self.stage.timeline(node) == self.first_timeline + 1, "promoted more than once, or not at all"

    def unmoved(self) -> None:
        """Check that the primary is the one that it was, on the same timeline."""
        # Right after a cut, a connection that was opened before it may say nothing for some seconds.
        wait_for(
            lambda: self.stage.look().node(self.first_primary).is_primary, 20.0, "the primary is another"
        )
        assert self.stage.primary == self.first_primary
        assert self.stage.timeline(self.first_primary) == self.first_timeline

    def _samples(self) -> list[Sample]:
        return self.sampler.samples if self.sampler is not None else []

    # --- the assertions of every scenario ---

    def _finish(self) -> None:
        stage = self.stage
        primary = stage.primary
        if not stage.facts(stage.peer(primary)).is_standby:
            self.rejoin(stage.peer(primary))
        now = time.time()
        wait_for(lambda: max(self.acknowledged().values()) > now, 20.0, "no write is accepted at the end")
        if self._pushes:
            wait_for(
                lambda: max(self.pushed().values(), default=0) > now, 30.0, "no push is accepted at the end"
            )
        self.end_loads()
        self._assert_losses()
        overlapping = overlaps(self._samples())
        if self.two_writers:
            assert overlapping, "the samples did not see the second primary"
        else:
            assert not overlapping, f"two nodes accepted writes: {overlapping}"
        self._assert_end_state()

    def _assert_losses(self) -> None:
        lost = self.lost()
        if not self.may_lose:
            assert not lost, f"{len(lost)} acknowledged writes are lost: {lost[:5]}"
            assert not self.lost_pushes(), "acknowledged pushes are lost"
            return
        if self.unknowable:
            return
        # By node and transaction: a new timeline counts on from the same transaction.
        reported = {(loss["host"], loss["xid"]) for loss in self.losses or []}
        tries = self._tries()
        silent = [number for number in lost if not tries.get(number, set()) & reported]
        assert not silent, f"{len(silent)} of {len(lost)} lost writes are not in the report: {silent[:5]}"
        # A write whose answer did not get through was lost too, and then repeated: it is rightly in the list.
        known, gone = self.acknowledged(), set(lost)
        wrong = [n for n, each in tries.items() if n in known and n not in gone and each <= reported]
        assert not wrong, f"reported as lost, and there: {wrong[:5]}"

    def _tries(self) -> dict[int, set[tuple[str, int]]]:
        """The node and transaction of each attempt to write an id."""
        tries: dict[int, set[tuple[str, int]]] = {}
        for line in read_lines(self.writes_log):
            if line.get("xid"):
                tries.setdefault(line["attempt"], set()).add((line["host"], int(line["xid"])))
        return tries

    def lost(self) -> list[int]:
        """The acknowledged ids that the primary does not have."""
        stage = self.stage
        rows = stage.execute(stage.primary, "SELECT id FROM faults_writes", stage.site.postgres.database)
        there = {int(row[0]) for row in rows}
        return sorted(number for number in self.acknowledged() if number not in there)

    def lost_pushes(self) -> list[str]:
        """The acknowledged digests that cannot be pulled; all of the last ones are tried, and some before."""
        digests = sorted(self.pushed(), key=self.pushed().__getitem__)
        tried = digests[-60:] + digests[:-60:5]
        gone = []
        with Registry(through_balancer(self.stage.site)) as registry:
            for digest in tried:
                try:
                    registry.pull(REPOSITORY, digest)
                except HarborRefused as refused:
                    if refused.status != 404:
                        raise
                    gone.append(digest)
        return gone

    def _assert_end_state(self) -> None:
        stage = self.stage
        wait_for(stage.healthy, 40.0, lambda: f"it does not end as a healthy pair: {stage.troubles()}")
        seen = stage.look()
        primary = next(node for node in seen.nodes if node.is_primary)
        standby = seen.node(stage.peer(primary.name))
        replicate_marker(stage.site, stage.host(standby.name), stage.host(primary.name))
        assert _slots(primary) == {slot_of(standby.name)}, "slots of the primary"
        assert _slots(standby) == set(), "slots of the standby"
        for node in seen.nodes:
            assert node.start_conf == "auto", f"start.conf of {node.name} says {node.start_conf}"
            assert not node.masked, f"{node.name} is masked"
            assert node.state.get(LOCK) is None, f"{node.name} holds a lock"
        # A node that was away keeps its copy of the record as it was; the newest one counts.
        record = latest_record(seen.nodes)
        assert record is None or not record.open, f"the record is open: {record}"

    def kept_losses(self, node: str) -> list[dict[str, Any]]:
        """Read the commits that rejoin listed last, from the file that it keeps on the node."""
        script = f"cat $(ls -t {STATE_DIR}/diverged/*.commits.json | head -1)"
        kept = json.loads(self.stage.shell(node, script))
        address = self.stage.site.node(node).address
        return [{**commit, "host": address} for commit in kept["commits"]]

    def all_kept_losses(self, node: str) -> list[dict[str, Any]]:
        """Read every list of commits that is kept on the node."""
        script = (
            f"for f in {STATE_DIR}/diverged/*.commits.json; do [ -e $f ] && tr -d '\\n' < $f && echo; done"
        )
        address = self.stage.site.node(node).address
        lists = [json.loads(line) for line in self.stage.shell(node, script, check=False).splitlines()]
        return [{**commit, "host": address} for kept in lists for commit in kept["commits"]]

    def _keep(self, error: BaseException | None) -> None:
        observed = "; ".join(self.observed)
        if error is not None:
            observed = (
                f"**failed**: {str(error).splitlines()[0][:200] if str(error) else type(error).__name__}"
            )
        try:
            lost = len(self.lost()) if error is None else 0
        except AssertionError:
            lost = 0
        own = self._own_losses()
        table.ROWS.append(
            table.Row(
                self.title,
                self.expected,
                observed,
                self.seconds,
                len(self.acknowledged()) + len(self.pushed()),
                lost,
                own,
            )
        )

    def _own_losses(self) -> int | None:
        if self.losses is None:
            return None
        own = set().union(*self._tries().values()) if self._tries() else set()
        return len({(loss["host"], loss["xid"]) for loss in self.losses} & own)


def _slots(node: NodeFacts) -> set[str]:
    return {slot.name for slot in node.server.slots if slot.kind == "physical"} if node.server else set()


@contextlib.contextmanager
def under_load(stage: Stage) -> Iterator[None]:
    """Load the site as a scene does, and look at nothing."""
    scene = Scene(stage, "the machine's pace", "")
    scene.__enter__()
    try:
        yield
    finally:
        scene._end()
