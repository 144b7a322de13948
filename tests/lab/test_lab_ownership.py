"""Labs that outlive the clone that made them, and labs of other clones under the same name."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.site_file import read_site_file
from lab.ownership import owners
from lab.shell import LabError, docker
from lab.site_lab import Lab
from lab.topology import LABEL, OWNER, STATE

# Named after the lab of this run: a clone that was killed amid these tests must not be in the way of the next.
_NAME = f"{os.environ.get('HARBOR_HA_TEST_LAB', 'test')[:15]}-stray"


@pytest.fixture
def stray(standing_lab: Lab) -> Iterator[Lab]:
    """A lab beside the one of the tests, which has seen to the engine, the images and the installer."""
    lab = Lab(_NAME)
    lab.down()
    yield lab
    lab.down()


def test_what_a_clone_that_is_gone_left_standing_is_replaced_and_takes_the_new_passwords(stray: Lab) -> None:
    """Its Redis and its bucket were taken for one's own once, and bootstrap was told WRONGPASS."""
    stray.up()
    stray.exec("node-a", ["touch", "/root/of-the-old-lab", "/mnt/nas/of-the-old-lab"])
    old = owners(_NAME)
    shutil.rmtree(STATE / _NAME)

    stray.up()

    assert len(old) == len(owners(_NAME)) == 1
    assert owners(_NAME) != old
    password = read_site_file(stray.site_file).redis.password.get_secret_value()
    answer = stray.exec("node-a", ["python3", "-c", _REDIS, stray.node_address("redis")], stdin=password)
    assert answer.stdout.strip() == "+OK"
    assert stray.exec("node-a", ["ls", "/root", "/mnt/nas"]).stdout.find("of-the-old-lab") < 0


@pytest.fixture
def elsewhere(tmp_path: Path, stray: Lab) -> Iterator[str]:
    """A volume of a lab of the same name in another clone, whose state is there."""
    state = tmp_path / ".lab" / _NAME
    state.mkdir(parents=True)
    (state / "lab.json").write_text(json.dumps({"subnet": "172.30.99.0/24", "mark": "theirs"}))
    labels = ("--label", f"{LABEL}={_NAME}", "--label", f"{OWNER}=theirs:{state}")
    docker("volume", "create", *labels, f"{_NAME}-nas")
    yield f"{_NAME}-nas"
    shutil.rmtree(tmp_path / ".lab")


@pytest.mark.parametrize("command", ["up", "down"])
def test_a_lab_of_another_clone_is_neither_taken_over_nor_taken_down(
    stray: Lab, elsewhere: str, tmp_path: Path, command: str
) -> None:
    with pytest.raises(LabError, match="belongs to another clone") as refused:
        getattr(stray, command)()
    assert str(tmp_path) in str(refused.value)
    assert elsewhere in docker("volume", "ls", "-q").split()
    assert not (STATE / _NAME / "lab.json").exists()


_REDIS = """
import socket, sys
with socket.create_connection((sys.argv[1], 6379), 5.0) as connection:
    connection.sendall(f"AUTH {sys.stdin.read()}\\r\\n".encode())
    print(connection.recv(64).decode())
"""
