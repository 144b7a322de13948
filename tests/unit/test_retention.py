"""Which backups stay: stories by the calendar, and what holds for every catalogue."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from flows.rules.retention import BackupFact, Generations, Verdict, retain

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
POLICY = Generations(daily=7, weekly=4, monthly=12, yearly=2, at_least=3, timezone="Asia/Shanghai")


def nightly(nights: int, hour: int = 18) -> list[BackupFact]:
    """One complete backup a night, the last one the night before NOW."""
    first = NOW.replace(hour=hour) - timedelta(days=nights)
    return [BackupFact(f"{n:05}", first + timedelta(days=n), complete=True) for n in range(nights)]


def kept(verdicts: Sequence[Verdict]) -> set[str]:
    return {verdict.name for verdict in verdicts if verdict.keep}


def test_three_years_of_nights_leave_one_backup_for_each_period() -> None:
    verdicts = retain(nightly(1100), POLICY, NOW)
    generations = [verdict for verdict in verdicts if verdict.keep]
    for generation, count in (("daily", 7), ("weekly", 4), ("monthly", 12), ("yearly", 2)):
        assert sum(generation in verdict.reason for verdict in generations) == count
    assert len(generations) < 7 + 4 + 12 + 2


def test_a_day_begins_where_the_site_is() -> None:
    # 15:00 and 17:00 UTC are the same day in London and two days in Shanghai (midnight is 16:00 UTC).
    two = [
        BackupFact("a", datetime(2026, 11, 20, 15, tzinfo=UTC), complete=True),
        BackupFact("b", datetime(2026, 11, 20, 17, tzinfo=UTC), complete=True),
    ]
    shanghai = Generations(2, 0, 0, 0, 1, "Asia/Shanghai")
    london = Generations(2, 0, 0, 0, 1, "Europe/London")
    assert kept(retain(two, shanghai, NOW)) == {"a", "b"}
    assert kept(retain(two, london, NOW)) == {"b"}


def test_a_site_that_was_off_for_a_year_keeps_its_seven_days() -> None:
    old = [BackupFact(b.name, b.started - timedelta(days=365), complete=True) for b in nightly(7)]
    assert len(kept(retain(old, POLICY, NOW))) == 7


def test_the_last_backup_that_a_drill_restored_outlives_all_generations() -> None:
    history = nightly(400)
    history[1] = BackupFact("00001", history[1].started, complete=True, verified=True)
    none = Generations(1, 0, 0, 0, 1, "UTC")
    verdicts = retain(history, none, NOW)
    assert kept(verdicts) == {"00001", "00399"}


def test_a_backup_without_images_does_not_push_out_the_last_one_with_images() -> None:
    history = [
        BackupFact(b.name, b.started, complete=True, with_images=b.name == "00003") for b in nightly(30)
    ]
    assert "00003" in kept(retain(history, Generations(1, 0, 0, 0, 1, "UTC"), NOW))


def test_what_an_operator_holds_stays_even_when_it_never_completed() -> None:
    held = BackupFact("x", NOW - timedelta(days=900), complete=False, held=True)
    (verdict,) = retain([held], POLICY, NOW)
    assert verdict.keep
    assert "held" in verdict.reason


def test_a_directory_without_marker_goes_after_two_days_and_never_counts() -> None:
    history = [*nightly(3)[:1], BackupFact("dead", NOW - timedelta(days=3), complete=False)]
    history += [BackupFact("running", NOW - timedelta(hours=1), complete=False)]
    assert kept(retain(history, Generations(0, 0, 0, 0, 1, "UTC"), NOW)) == {"00000", "running"}


def test_a_backup_from_the_future_stays_and_shields_nothing() -> None:
    history = [*nightly(2), BackupFact("later", NOW + timedelta(days=9), complete=True)]
    assert kept(retain(history, Generations(0, 0, 0, 0, 1, "UTC"), NOW)) == {"00001", "later"}


zones = st.sampled_from(["UTC", "Asia/Shanghai", "America/St_Johns", "Pacific/Apia", "Europe/Berlin"])
counts = st.integers(0, 5)
policies = st.builds(Generations, counts, counts, counts, counts, counts, zones)
facts = st.builds(
    BackupFact,
    name=st.uuids().map(str),
    started=st.datetimes(datetime(2020, 1, 1), datetime(2026, 12, 1), timezones=zones.map(ZoneInfo)),
    complete=st.booleans(),
    with_images=st.booleans(),
    held=st.booleans(),
    verified=st.booleans(),
)
catalogues = st.lists(facts, max_size=40, unique_by=lambda fact: fact.name)


@given(catalogues, policies)
def test_every_backup_gets_exactly_one_verdict_with_a_reason(
    history: list[BackupFact], policy: Generations
) -> None:
    verdicts = retain(history, policy, NOW)
    assert sorted(v.name for v in verdicts) == sorted(b.name for b in history)
    assert all(verdict.reason for verdict in verdicts)


@given(catalogues, policies)
def test_no_policy_ever_leaves_a_site_without_what_it_needs(
    history: list[BackupFact], policy: Generations
) -> None:
    keep = kept(retain(history, policy, NOW))
    past = sorted((b for b in history if b.complete and b.started <= NOW), key=lambda b: (b.started, b.name))
    for group in (past, [b for b in past if b.verified], [b for b in past if b.with_images]):
        assert not group or group[-1].name in keep
    assert {b.name for b in past[-policy.at_least :] if policy.at_least} <= keep
    assert {b.name for b in history if b.held} <= keep


@given(catalogues, policies)
def test_pruning_twice_removes_nothing_more(history: list[BackupFact], policy: Generations) -> None:
    keep = kept(retain(history, policy, NOW))
    survivors = [backup for backup in history if backup.name in keep]
    assert kept(retain(survivors, policy, NOW)) == keep


@given(catalogues, policies, st.randoms())
def test_the_order_of_the_catalogue_does_not_matter(
    history: list[BackupFact], policy: Generations, random
) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(history)
    random.shuffle(shuffled)
    assert retain(shuffled, policy, NOW) == retain(history, policy, NOW)


@given(catalogues, policies)
def test_asking_for_more_never_removes_more(history: list[BackupFact], policy: Generations) -> None:
    more = Generations(
        policy.daily + 1,
        policy.weekly,
        policy.monthly + 1,
        policy.yearly,
        policy.at_least + 1,
        policy.timezone,
    )
    assert kept(retain(history, policy, NOW)) <= kept(retain(history, more, NOW))
