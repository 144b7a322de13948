"""Who holds a lock, and whether that process is certainly gone."""

from dataclasses import replace

import pytest

from tasks.operation import holder
from tasks.operation.holder import describe, known_dead, this_process


def test_this_process_is_alive_and_another_of_its_number_is_not_it() -> None:
    own = this_process()
    assert not known_dead(str(own))
    assert known_dead(str(replace(own, start=f"{own.start}1")))


def test_an_orchestrator_restored_from_a_snapshot_does_not_take_the_lock_of_the_one_that_lives() -> None:
    # Its name and its id are the other's, only the boot differs: that passed for "this machine before its boot".
    assert not known_dead(str(replace(this_process(), boot="01234567", start="1")))


def test_a_clone_with_other_network_cards_knows_nothing_of_the_processes_of_its_original() -> None:
    assert not known_dead(str(replace(this_process(), machine="01234567", start="1")))


def test_a_process_of_another_container_of_this_machine_is_not_called_dead() -> None:
    assert not known_dead(str(replace(this_process(), start="1", namespace="1")))


def test_a_container_without_a_machine_id_knows_its_own_processes_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nameless = replace(this_process(), machine="")
    monkeypatch.setattr(holder, "this_process", lambda: nameless)
    assert known_dead(str(replace(nameless, start="1")))
    assert not known_dead(str(replace(nameless, boot="01234567")))


@pytest.mark.parametrize("text", ["", "nonsense", "a b c d", "elsewhere:1:2:3:4:5", "vm:x:2:3:4:5"])
def test_what_cannot_be_known_is_not_called_dead(text: str) -> None:
    assert not known_dead(text)


def test_a_reader_is_told_process_and_machine() -> None:
    assert describe("vm:30380:4995967:a21f1147:4026531836:3d1219c7") == "process 30380 on vm"
    assert describe("somebody") == "somebody"
