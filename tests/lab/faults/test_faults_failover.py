"""The primary is lost, or only seems to be."""

import pytest

from lab.faults import accidents
from lab.faults.stage import Stage, wait_for
from tests.lab.faults.pace import best_of_two
from tests.lab.faults.scene import Scene, under_load

# Seconds from the call to the first push that gets through.
HOST_ALIVE_LIMIT_S = 10.0
POWER_CUT_LIMIT_S = 20.0
# A record with two full pages.
ONE_RECORD = 20_000


def test_f1_a_killed_server_on_a_living_machine_is_restarted_without_a_failover(stage: Stage) -> None:
    with Scene(stage, "F1 PostgreSQL killed, host up", "restarted, no failover, timeline unchanged") as scene:
        primary = scene.first_primary
        accidents.kill_postgres(stage, primary)
        run = scene.flow("failover", expected_primary=primary)
        assert "restarted and is the primary again" in run.headline
        scene.unmoved()
        scene.saw("restarted, timeline unchanged")


def test_a_server_killed_for_good_is_replaced_within_ten_seconds(stage: Stage) -> None:
    def attempt() -> float:
        title, expected = (
            "F1b PostgreSQL killed for good, host up",
            "fenced over SSH, promoted, ≤ 10 s to a push",
        )
        with Scene(stage, title, expected, may_lose=True) as scene:
            old, new = scene.first_primary, scene.first_standby
            accidents.kill_postgres_for_good(stage, old)
            run = scene.flow("failover", expected_primary=old)
            assert f"{new} is the primary" in run.headline
            report = run.result["report"]
            assert 'program "postgres" is needed' in report, "why the restart did not help is not told"
            assert "unexpected postmaster exit" not in report, "what clients met hides it"
            seconds = scene.first_push_after(run.answer["begun"])
            scene.switched_to(new)
            assert not scene.accepted_on(old, run.answer["begun"])
            accidents.repair_postgres(stage, old)
            scene.rejoin(old)
            scene.saw(f"promoted; {seconds:.1f} s to the first push")
        return seconds

    best_of_two(HOST_ALIVE_LIMIT_S, attempt, stage.shell, under_load(stage))


def test_f3_a_power_cut_of_the_primarys_machine_is_survived_within_twenty_seconds(stage: Stage) -> None:
    def attempt() -> float:
        title, expected = (
            "F3 power cut of the primary's host",
            "fenced by the site's command, promoted, ≤ 20 s to a push",
        )
        with Scene(stage, title, expected, may_lose=True) as scene:
            old, new = scene.first_primary, scene.first_standby
            stage.lab.stop(old)
            run = scene.flow("failover", expected_primary=old)
            assert f"{new} is the primary" in run.headline
            assert "COMMANDED" in run.headline
            seconds = scene.first_push_after(run.answer["begun"])
            scene.switched_to(new)
            stage.lab.start(old)
            assert stage.facts(old).server is None, "the old primary started by itself"
            scene.rejoin(old)
            scene.saw(f"promoted; {seconds:.1f} s to the first push")
        return seconds

    best_of_two(POWER_CUT_LIMIT_S, attempt, stage.shell, under_load(stage))


def test_f4_a_cut_between_orchestrator_and_primary_alone_is_a_false_alarm(stage: Stage) -> None:
    with Scene(stage, "F4 orchestrator cut off from the primary", "nothing done: it lives") as scene:
        primary = scene.first_primary
        stage.lab.cut("orchestrator", primary)
        run = scene.flow("failover", expected_primary=primary)
        assert "Nothing was done" in run.headline
        assert "answers as a writable primary" in run.headline
        before = run.answer["begun"]
        assert scene.first_push_after(before) < 3.0, "clients noticed something"
        stage.lab.heal()
        scene.unmoved()
        scene.saw("seen alive through the standby; pushes went on")


@pytest.mark.faults
def test_f5_a_cut_between_primary_and_standby_is_no_reason_for_a_failover(stage: Stage) -> None:
    with Scene(
        stage, "F5 primary and standby cut off from each other", "no failover; check says DEGRADED"
    ) as scene:
        primary = scene.first_primary
        stage.lab.cut(primary, scene.first_standby)
        run = scene.flow("failover", expected_primary=primary)
        assert "Nothing was done" in run.headline
        stage.lab.heal()
        scene.unmoved()
        scene.saw(run.headline)


@pytest.mark.faults
def test_f9_a_standby_that_lags_too_far_is_promoted_only_when_the_loss_is_accepted(stage: Stage) -> None:
    title, expected = (
        "F9 standby lags over the limit",
        "refused with the lag; with accept_data_loss promoted, loss listed",
    )
    with Scene(stage, title, expected, may_lose=True, pushes=False) as scene:
        old, new = scene.first_primary, scene.first_standby
        scene.diverge(10)
        accidents.write_wal(stage, old, 4)
        stage.check()
        accidents.kill_postgres_for_good(stage, old)
        stage.lab.heal()
        refusal = scene.flow("failover", expected_primary=old).refusal
        assert "bytes behind the last position" in refusal
        run = scene.flow("failover", expected_primary=old, accept_data_loss=True)
        assert f"{new} is the primary" in run.headline
        scene.switched_to(new)
        accidents.repair_postgres(stage, old)
        scene.rejoin(old)
        assert scene.lost()
        scene.saw(refusal.splitlines()[1].partition(" -> ")[0].strip(" -"))


@pytest.mark.faults
def test_f10_what_the_standby_received_and_did_not_replay_is_replayed_before_the_promotion(
    stage: Stage,
) -> None:
    title, expected = (
        "F10 replay backlog on the standby",
        "refused while paused; then all that was received is replayed",
    )
    with Scene(stage, title, expected, may_lose=True, pushes=False) as scene:
        old, new = scene.first_primary, scene.first_standby
        stage.execute(new, "SELECT pg_wal_replay_pause()")
        accidents.write_wal(stage, old, 8)
        scene.wait_for_writes(20)
        accidents.kill_postgres_for_good(stage, old)
        received = stage.value(new, "SELECT pg_last_wal_receive_lsn()")
        assert "Replay is paused" in scene.flow("failover", expected_primary=old).refusal
        stage.execute(new, "SELECT pg_wal_replay_resume()")
        run = scene.flow("failover", expected_primary=old)
        assert f"{new} is the primary" in run.headline
        fork = stage.fork(new)
        # What arrived may end within a record, which cannot be replayed.
        missing = int(stage.value(new, f"SELECT pg_wal_lsn_diff('{received}', '{fork}')::bigint"))
        assert missing < ONE_RECORD, f"{missing} bytes of received WAL were lost"
        scene.switched_to(new)
        accidents.repair_postgres(stage, old)
        scene.rejoin(old)
        scene.saw(f"received up to {received}, left the old timeline at {fork}")


def test_f11_of_two_failovers_called_at_the_same_instant_one_works(stage: Stage) -> None:
    title = "F11, F12 two failovers at the same instant, one later"
    with Scene(stage, title, "one promotes; the others do nothing and say so", may_lose=True) as scene:
        old, new = scene.first_primary, scene.first_standby
        accidents.kill_postgres_for_good(stage, old)
        runs = [stage.flow("failover", expected_primary=old) for _ in range(2)]
        told = [scene.describe(run.wait()) for run in runs]
        scene.seconds = max(run.seconds for run in runs)
        assert sum(f"{new} is the primary on timeline" in text for text in told) == 1, told
        assert any("in progress" in text or "Nothing was done" in text for text in told), told
        late = scene.describe(stage.failover(old))
        assert f"{old} is not the primary; {new}" in late
        scene.switched_to(new)
        accidents.repair_postgres(stage, old)
        scene.rejoin(old)
        scene.saw("one promoted, one in progress, the late one is told who is primary")


@pytest.mark.faults
def test_f15_a_former_primary_that_boots_with_autostart_is_kept_from_starting(stage: Stage) -> None:
    title = "F15 old primary boots after the failover"
    with Scene(
        stage, title, "the boot guard refuses the start; rejoin brings it back", may_lose=True, pushes=False
    ) as scene:
        old, new = scene.first_primary, scene.first_standby
        stage.lab.stop(old)
        run = scene.flow("failover", expected_primary=old)
        assert f"{new} is the primary" in run.headline
        stage.lab.start(old)
        assert stage.shell(old, f"tail -1 {stage.layout.conf}/start.conf") == "auto"
        assert not stage.shell(old, f"ls {stage.layout.data}/standby.signal", check=False)
        said = stage.shell(
            old, f"journalctl -u {stage.layout.unit} --no-pager | grep -i refused", check=False
        )
        assert f"{new} is the primary" in said
        stage.shell(old, f"systemctl start {stage.layout.unit}", check=False)
        assert not stage.shell(old, "pgrep -x postgres", check=False), "it started"
        scene.switched_to(new)
        scene.rejoin(old)
        scene.saw(said.rpartition("refused: ")[2][:120])


@pytest.mark.faults
def test_f16_with_two_primaries_nothing_acts_by_itself(stage: Stage) -> None:
    title, expected = (
        "F16 standby promoted by hand",
        "SPLIT_BRAIN; every flow refuses; cloned after a decision",
    )
    with Scene(stage, title, expected, two_writers=True, pushes=False) as scene:
        right, wrong = scene.first_primary, scene.first_standby
        scene.wait_until_settled_primary()
        stage.execute(wrong, "SELECT pg_promote(true, 30)")
        assert stage.check()["verdict"] == "SPLIT_BRAIN"
        for called in (
            stage.flow("failover", expected_primary=right),
            stage.flow("failover", expected_primary=wrong),
            stage.flow("switchover", to=wrong),
            stage.flow("rejoin", node=wrong),
        ):
            told = scene.describe(called.wait())
            assert told.startswith("Refused") or "Nothing was done" in told, told
        assert stage.timeline(right) == scene.first_timeline
        data = stage.layout.data
        stage.shell(wrong, f"systemctl stop {stage.layout.unit}")
        assert "newer timeline" in scene.flow("rejoin", node=wrong).refusal
        stage.shell(wrong, f"mv {data} {data}.by-hand")
        scene.unknowable = True
        run = scene.rejoin(wrong)
        assert "was cloned" in run.headline
        stage.shell(wrong, f"rm -rf {data}.by-hand")
        scene.unmoved()
        scene.saw("all refused; cloned after the directory was moved aside")


@pytest.mark.faults
def test_f19_a_second_failover_within_the_cooldown_needs_an_operator(stage: Stage) -> None:
    title = "F19 second failover within the cooldown"
    with Scene(stage, title, "an alert does nothing; an operator may", may_lose=True, pushes=False) as scene:
        old, new = scene.first_primary, scene.first_standby
        accidents.kill_postgres_for_good(stage, old)
        assert f"{new} is the primary" in scene.flow("failover", expected_primary=old).headline
        accidents.repair_postgres(stage, old)
        scene.rejoin(old)
        stage.check()
        with stage.settings(failover__cooldown_s=600):
            accidents.kill_postgres_for_good(stage, new)
            told = scene.flow("failover", expected_primary=new).headline
            assert "cooldown" in told
            run = scene.flow("failover", expected_primary=new, accept_data_loss=True)
            assert f"{old} is the primary" in run.headline
        accidents.repair_postgres(stage, new)
        scene.rejoin(new)
        assert stage.timeline(old) == scene.first_timeline + 2
        scene.saw("held back by the cooldown; the operator's call went on")


@pytest.mark.faults
def test_f20_in_a_pause_an_alert_starts_nothing(stage: Stage) -> None:
    with Scene(stage, "F20 pause", "failover does nothing and says why; switchover refuses") as scene:
        primary = scene.first_primary
        stage.flow("pause", reason="new switch", by="the test").wait().result  # noqa: B018
        accidents.kill_postgres(stage, primary)
        told = scene.flow("failover", expected_primary=primary).headline
        assert "paused: new switch" in told
        assert "paused" in stage.flow("switchover", to=scene.first_standby).refusal
        stage.flow("pause", end=True).wait().result  # noqa: B018
        assert "restarted" in scene.flow("failover", expected_primary=primary).headline
        scene.unmoved()
        scene.saw("nothing was done in the pause; restarted after it")


@pytest.mark.faults
def test_a_failover_goes_on_without_the_load_balancers_admin_socket(stage: Stage) -> None:
    title = "B1 load balancer cannot be told, power cut"
    with (
        Scene(
            stage, title, "fenced by the command, promoted; the drain is reported as failed", may_lose=True
        ) as scene,
        stage.settings(balancer__admin_port=9998),
    ):
        old, new = scene.first_primary, scene.first_standby
        stage.lab.stop(old)
        run = scene.flow("failover", expected_primary=old)
        assert f"{new} is the primary" in run.headline
        failed = [r for r in run.records() if r["changed"] is None]
        assert "Drain the node at the load balancer" in [r["title"] for r in failed]
        scene.first_push_after(run.answer["ended"])
        scene.switched_to(new)
        stage.lab.start(old)
        stage.configure()
        scene.rejoin(old)
        scene.saw("promoted; its own health check took the dead node out")


@pytest.mark.faults
def test_a_node_whose_harbor_does_not_follow_is_taken_out_and_reported(stage: Stage) -> None:
    title = "B2 repoint fails on one node"
    with Scene(
        stage, title, "promoted; that node drained and reported, the other serves", may_lose=True
    ) as scene:
        old, new = scene.first_primary, scene.first_standby
        stage.shell(old, "systemctl stop docker.socket docker")
        accidents.kill_postgres_for_good(stage, old)
        run = scene.flow("failover", expected_primary=old)
        assert f"{new} is the primary" in run.headline
        assert "Left behind" in run.result["report"]
        assert stage.served()[old] == "drained"
        scene.first_push_after(run.answer["ended"])
        scene.switched_to(new)
        stage.shell(old, "systemctl start docker")
        accidents.repair_postgres(stage, old)
        scene.rejoin(old)
        scene.saw("promoted; drained and reported, back after rejoin")


@pytest.mark.faults
def test_a_failover_called_while_a_rejoin_runs_is_in_progress(stage: Stage) -> None:
    title = "B3 failover called while rejoin runs"
    with Scene(
        stage, title, "told that rejoin is in progress; rejoin ends well", may_lose=True, pushes=False
    ) as scene:
        old, new = scene.first_primary, scene.first_standby
        accidents.kill_postgres_for_good(stage, old)
        assert f"{new} is the primary" in scene.flow("failover", expected_primary=old).headline
        accidents.repair_postgres(stage, old)
        pause = {"title": "Rewind", "run": ["sleep", "15"]}
        rejoin = stage.flow("rejoin", node=old, accident=pause)
        wait_for(lambda: "Rewind" in rejoin.titles(), 60.0, "no rewind")
        told = scene.describe(stage.failover(new))
        assert "rejoin" in told
        assert "in progress" in told
        scene.losses = scene.kept_losses(old)
        assert "was rewound" in rejoin.wait().headline
        scene.switched_to(new)
        scene.saw("in progress; the rejoin ended")


@pytest.mark.faults
def test_a_server_that_hangs_is_restarted(stage: Stage) -> None:
    with Scene(stage, "B4 PostgreSQL hangs", "restarted, no failover, nothing lost", pushes=False) as scene:
        primary = scene.first_primary
        stage.shell(primary, "pkill -STOP -u postgres -x postgres")
        run = scene.flow("failover", expected_primary=primary)
        assert "restarted and is the primary again" in run.headline
        scene.unmoved()
        scene.saw("restarted")
