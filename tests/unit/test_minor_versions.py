"""A pair in the week of an upgrade: what the newer PostgreSQL wrote is not restored onto the older one for a test."""

from types import SimpleNamespace
from typing import cast

import pytest

from flows.rules.dump_node import DumpCandidate, choose_drill_node, choose_dump_node, older_servers, release
from tasks.backup.format.contents import Entry
from tasks.backup.restore.load import DumpNotLoaded, _require_optional, failures_of
from tasks.hosts.connection import Host

# As pg_restore 15.18 said it of a dump with what a 15.20 had written.
REFUSED = (
    "pg_restore: while PROCESSING TOC:\n"
    "pg_restore: from TOC entry 228; 1259 16511 TABLE artifact harbor\n"
    'pg_restore: error: could not execute query: ERROR:  unrecognized parameter "pg_attver"\n'
    "Command was: CREATE TABLE public.artifact (secret text DEFAULT 'hunter2');\n"
)


def primary(version: int) -> DumpCandidate:
    return DumpCandidate("node-a", "primary", 100, version_num=version)


def standby(version: int) -> DumpCandidate:
    return DumpCandidate("node-b", "standby", 100, streaming=True, version_num=version)


class TestTheDrill:
    def test_is_on_the_standby_when_both_are_of_one_version(self) -> None:
        assert choose_drill_node([primary(150020), standby(150020)]) == "node-b"

    def test_is_on_the_primary_when_that_is_newer_although_the_dump_is_the_standbys(self) -> None:
        candidates = [primary(150020), standby(150018)]
        assert choose_dump_node(candidates).node == "node-b"
        assert choose_drill_node(candidates) == "node-a"

    def test_is_on_the_standby_when_that_is_newer(self) -> None:
        assert choose_drill_node([primary(150018), standby(150020)]) == "node-b"

    def test_does_not_look_at_a_node_that_did_not_answer(self) -> None:
        assert choose_drill_node([primary(150020), DumpCandidate("node-b", "", error="no route")]) == "node-a"


class TestTheNight:
    def test_names_the_older_server_and_both_versions(self) -> None:
        (line,) = older_servers([primary(150020), standby(150018)])
        assert line.startswith("node-b runs PostgreSQL 15.18, and another node 15.20")

    @pytest.mark.parametrize("other", [standby(150020), DumpCandidate("node-b", "", error="no route")])
    def test_says_nothing_of_one_version_or_of_a_node_that_did_not_answer(self, other: DumpCandidate) -> None:
        assert older_servers([primary(150020), other]) == []

    def test_writes_a_version_as_people_do(self) -> None:
        assert (release(150004), release(130022), release(170010)) == ("15.4", "13.22", "17.10")


class TestARestoreOntoAnOlderServer:
    def test_says_what_the_server_does_not_know_and_nothing_of_the_statement(self) -> None:
        assert failures_of(REFUSED) == {228: 'unrecognized parameter "pg_attver"'}

    def test_advises_to_upgrade_and_not_to_look_for_damage(self) -> None:
        table = cast(Entry, SimpleNamespace(number=228, kind="TABLE", says="table public.artifact"))
        host = cast(Host, SimpleNamespace(name="node-b"))
        with pytest.raises(DumpNotLoaded) as refused:
            _require_optional(host, [table], failures_of(REFUSED), "registry")
        assert "pg_attver" in str(refused.value)
        assert "Upgrade PostgreSQL here" in str(refused.value)
        assert "earlier backup" not in str(refused.value)
