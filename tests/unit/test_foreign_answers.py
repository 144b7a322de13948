"""Whatever a load balancer, Redis, pg_controldata or a node answers: an error of ours or "not known", nothing else."""

import contextlib
import json
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flows.machinery.sight import durability_state, identity, last_primary
from flows.rules.admission import admit_failover, highest_term
from flows.rules.policy import Policy
from flows.rules.verdict import verdict
from tasks.balancer.haproxy import parse_stat
from tasks.balancer.states import BalancerError, Served
from tasks.clock import Moment
from tasks.errors import HarborHaError
from tasks.observation.look import SiteLook, with_pause
from tasks.observation.redis import RedisUnreadable, hears, parse_clients
from tasks.observation.witnesses import note_of
from tasks.postgres.controldata import ControlDataUnreadable, controldata
from tasks.postgres.facts_parser import AnswerUnreadable, parse_answer
from tests.unit.facts_builder import NOW as FACTS_NOW
from tests.unit.facts_builder import primary, standby, unreached

STAT = "# pxname,svname,scur,status,check_status,last_chk,\nharbor,node-a,0,UP,L7OK,,\nharbor,node-b,2,MAINT,,,\n\n"
CLIENTS = "id=3 addr=10.0.0.11:40022 laddr=10.0.0.21:6379 name= age=10 idle=1 flags=N\n"
NOW = Moment(1.0, 1.0)

# Near misses find more than noise: a real answer with a piece cut out, doubled or replaced.
ODD = st.text(alphabet=st.characters(codec="utf-8"), max_size=12)


def spoiled(text: str) -> st.SearchStrategy[str]:
    """Real text with a slice of it replaced, or its end cut off."""
    place = st.integers(0, len(text))
    return st.builds(lambda a, b, odd: text[: min(a, b)] + odd + text[max(a, b) :], place, place, ODD)


@pytest.mark.parametrize(
    "answer",
    [
        "HTTP/1.0 400 Bad request\r\nCache-Control: no-cache\r\n\r\n<html><body><h1>400 Bad request</h1>\n",
        "Unknown command: 'show stat', but maybe one of the following ones is a better match:\n  show proc\n",
        "",
        "\n",
        "pxname,svname\nharbor,node-a\n",
    ],
)
def test_an_answer_that_is_no_table_of_servers_is_an_error_of_ours(answer: str) -> None:
    with pytest.raises(BalancerError, match="show stat"):
        parse_stat(answer, "harbor")


def test_a_row_that_was_cut_off_is_not_known_and_takes_no_other_row_with_it() -> None:
    """`MAINT (via b/s)` cut after its first word would pass for a drain of ours."""
    cut = STAT.replace("harbor,node-b,2,MAINT,,,\n\n", "harbor,node-b,2,MAINT")
    assert {name: state.served for name, state in parse_stat(cut, "harbor").items()} == {
        "node-a": Served.UP,
        "node-b": Served.UNKNOWN,
    }


def test_a_count_of_sessions_that_is_none_is_not_known() -> None:
    states = parse_stat(STAT.replace("node-b,2,", "node-b,two,"), "harbor")
    assert states["node-b"].served is Served.UNKNOWN
    assert states["node-a"].served is Served.UP


@given(spoiled(STAT) | ODD)
def test_whatever_a_load_balancer_says_is_states_or_an_error_of_ours(text: str) -> None:
    try:
        states = parse_stat(text, "harbor")
    except BalancerError:
        return
    assert all(state.served in Served for state in states.values())


@pytest.mark.parametrize(
    "line",
    [
        "id=3 addr=10.0.0.11:40022 name= age=10",
        "id=3 addr=10.0.0.11:40022 idle=soon",
        "id=3 addr=10.0.0.11:40022 idle=",
        "id=3 addr=10.0.0.11:40022 idle=-1",
        "id=3 idle=0",
        "id=3 addr=somewhere idle=0",
        "garbage",
    ],
)
def test_an_odd_line_of_redis_may_hide_the_node_and_is_not_taken_for_its_absence(line: str) -> None:
    other = "id=4 addr=10.0.0.12:40022 name= age=10 idle=1\n"
    assert hears(parse_clients(other + line + "\n"), {"10.0.0.11"}) is None
    assert hears(parse_clients(CLIENTS + line + "\n"), {"10.0.0.11"}) is True


@given(spoiled(CLIENTS * 2) | ODD)
def test_whatever_redis_lists_is_an_answer(text: str) -> None:
    assert hears(parse_clients(text), {"10.0.0.11"}) in (True, False, None)


def test_redis_has_an_error_of_its_own() -> None:
    assert issubclass(RedisUnreadable, Exception)


CONTROL = """pg_control version number:            1300
Database system identifier:           7300000000000000001
Database cluster state:               in production
Latest checkpoint location:           0/5000028
Latest checkpoint's REDO location:    0/5000028
Latest checkpoint's TimeLineID:       2
Minimum recovery ending location:     0/0
Min recovery ending loc's timeline:   0
wal_log_hints setting:                on
Bytes per WAL segment:                16777216
"""


@given(spoiled(CONTROL) | ODD)
def test_whatever_pg_controldata_prints_is_a_control_file_or_an_error_of_ours(text: str) -> None:
    try:
        seen = controldata(text)
    except ControlDataUnreadable:
        return
    assert seen.segment_size > 0
    assert seen.timeline >= 0


ANSWER: dict[str, Any] = {
    "seen": {
        "machine": {"boot_id": "b:1", "uptime_s": 1.0, "clock": 1.0},
        "state": {"accepted": {"primary": "node-a"}},
        "nas": {"mounted": True, "disk": {"total": 10, "free": 5}},
        "addresses": ["10.0.0.11"],
        "cluster": {
            "major": 15,
            "processes": [1],
            "unknown_processes": [],
            "postmaster_status": "ready",
            "standby_signal": False,
            "recovery_signal": False,
            "backup_label_method": None,
            "auto_conf": [],
            "writable": True,
            "ready_count": 0,
            "history_timeline": None,
            "history": None,
        },
        "control": {"text": CONTROL, "checkpoint_length": 114},
        "autostart": {"start_conf": "auto", "masked": False},
        "data_disk": {"total": 10, "free": 5},
        "harbor": {"configured_database": "10.0.0.11"},
        "harbor_containers": {"containers": {}, "running_database": "10.0.0.11"},
        "harbor_health": {"status": "healthy", "components": {}, "certificate": ""},
        "tcp:node-b": "open",
    },
    "problems": {},
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def replaced(value: Any, path: list[int], odd: Any) -> Any:
    """The value with one place in it replaced; the path chooses by position."""
    if not path or not isinstance(value, dict | list) or not value:
        return odd
    if isinstance(value, list):
        at = path[0] % len(value)
        return [replaced(one, path[1:], odd) if n == at else one for n, one in enumerate(value)]
    at = path[0] % len(value)
    return {
        key: replaced(one, path[1:], odd) if n == at else one for n, (key, one) in enumerate(value.items())
    }


@given(st.lists(st.integers(0, 20), max_size=4), JSON)
def test_whatever_a_node_answers_is_facts_or_an_error_of_ours(path: list[int], odd: Any) -> None:
    answer = json.loads(json.dumps(replaced(ANSWER, path, odd)))
    try:
        facts = parse_answer("node-a", answer, NOW, NOW, "direct")
    except AnswerUnreadable:
        return
    assert facts.reachable


@pytest.mark.parametrize("part", ["harbor", "harbor_health", "data_disk", "nas", "autostart", "cluster"])
def test_one_odd_part_of_an_answer_does_not_make_a_sound_node_unreachable(part: str) -> None:
    """A certificate that no library reads, or a disk without numbers: the rest of the look is still true."""
    answer = json.loads(json.dumps(ANSWER))
    answer["seen"][part] = {"certificate": "AAAA", "total": "much"} if part != "cluster" else {"major": 15}
    facts = parse_answer("node-a", answer, NOW, NOW, "direct")
    assert facts.reachable
    assert facts.boot_id == "b:1"
    assert part in facts.problems


def test_notes_on_a_node_that_cannot_be_told_do_not_pass_for_absent() -> None:
    answer = json.loads(json.dumps(ANSWER))
    answer["seen"]["state"] = ["lost"]
    with pytest.raises(AnswerUnreadable):
        parse_answer("node-a", answer, NOW, NOW, "direct")


NAMES = [
    "operation", "term", "lock", "accepted", "paused", "last_primary", "witnessed", "durability", "rewind", "verdict",
]  # fmt: skip
KEYS = [
    "op_id", "holder", "expires_at", "taken_at", "term", "phase", "kind", "primary", "timeline", "reason", "since",
    "by", "node", "nodes", "position", "at", "state", "lsn", "verdict", "system_identifier", "drained", "fence",
]  # fmt: skip
SPOILED = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.text(max_size=3) | st.just(float("nan")),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=6,
)


@settings(max_examples=300)
@example({"accepted": {"primary": None, "timeline": None}})
@given(st.dictionaries(st.sampled_from(NAMES), SPOILED, max_size=3))
def test_whatever_the_notes_on_a_node_hold_what_is_read_from_them_is_known_or_an_error_of_ours(
    state: dict[str, Any],
) -> None:
    a, b = primary(state=state, shared=state), standby(state=state)
    seen = SiteLook((a, b), frozenset({"node-a", "node-b"}), 0.1)
    gone = SiteLook((unreached(), b), seen.databases, 0.1)
    for read in (
        lambda: verdict(seen.every, {}, Policy(), FACTS_NOW),
        lambda: admit_failover(seen.nodes, "node-a", Policy(), "x", FACTS_NOW, by_operator=False),
        lambda: highest_term(seen.nodes),
        lambda: last_primary(gone, "node-a"),
        lambda: identity(seen),
        lambda: durability_state(seen),
        lambda: with_pause(seen.every, seen.databases),
        lambda: note_of(seen.every),
    ):
        with contextlib.suppress(HarborHaError):
            cast(Callable[[], Any], read)()
