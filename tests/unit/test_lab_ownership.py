"""Whose a lab is, by the label on its parts."""

import ipaddress
import json
from pathlib import Path

from lab.machines import redis_arguments
from lab.ownership import Owner
from lab.topology import OWNER, Topology

_LAB = Topology("demo", ipaddress.IPv4Network("172.30.90.0/24"), "1f2e")


def _note(directory: Path, text: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "lab.json").write_text(text)


def test_the_label_on_every_machine_names_the_state_that_has_its_passwords() -> None:
    label = f"{OWNER}=1f2e:{_LAB.directory}"
    assert label in redis_arguments(_LAB, "image")
    assert Owner.read(label.removeprefix(f"{OWNER}=")) == Owner("1f2e", _LAB.directory)


def test_a_lab_lives_as_long_as_its_state_is_there(tmp_path: Path) -> None:
    owner = Owner("1f2e", tmp_path / "clone" / ".lab" / "demo")
    assert not owner.lives()
    _note(owner.directory, json.dumps({"subnet": "172.30.90.0/24", "mark": "1f2e"}))
    assert owner.lives()


def test_a_newer_lab_in_the_same_directory_is_another_one(tmp_path: Path) -> None:
    _note(tmp_path, json.dumps({"subnet": "172.30.90.0/24", "mark": "newer"}))
    assert not Owner("older", tmp_path).lives()


def test_a_note_that_is_no_note_keeps_no_lab_alive(tmp_path: Path) -> None:
    for text in ("", "{", "{}", "[]", '{"mark": ""}'):
        _note(tmp_path, text)
        assert not Owner("1f2e", tmp_path).lives()
        assert not Owner("", tmp_path).lives()


def test_what_was_made_before_there_were_labels_has_no_owner_that_lives() -> None:
    assert not Owner.read("").lives()
