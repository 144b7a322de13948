"""A value that Docker does not take stops no engine: it is refused at the check, or the file from before is back."""

import json
from pathlib import Path
from typing import Any

import pytest

from blocks import SiteFileInvalid, read_site_file
from blocks.docker_rules import insecure_registries, mirrors
from blocks.flaw import Flaw
from tasks.docker.daemon import merged
from tasks.docker.on_node import daemon_apply
from tasks.errors import RemoteCommandFailed
from tasks.node_program import node_program
from tests.unit.harbor_site import program
from tests.unit.local_host import LocalHost
from tests.unit.site_on_disk import NOW, correct_site

pytestmark = pytest.mark.servers
PROGRAM = node_program(daemon_apply)

# What a real dockerd, 20.10, did not take at a reload.
REFUSED_MIRRORS = [
    "https://m.example.com/docker/",
    "https://m.example.com?x=1",
    "https://user:Secret123@m.example.com",
    "https://m.example.com//",
    "https://m.example.com:x",
    "m.example.com",
]
REFUSED_REGISTRIES = ["10.20.0.10:5000/", "http://a:5000", "a:70000", "-a", "a_b:5000", " a:5000", "a/b", ""]
TAKEN_REGISTRIES = [
    "10.20.0.1/16",
    "A.Example.com:5000",
    "index.docker.io",
    "[fd00::1]:5000",
    "fd00::1/64",
    "a",
]


@pytest.mark.parametrize("value", REFUSED_MIRRORS)
def test_a_mirror_that_docker_does_not_take_is_refused_at_the_check(value: str, tmp_path: Path) -> None:
    found = mirrors(["https://good.example.com", value])
    assert found
    assert "Secret123" not in f"{found}"
    site = correct_site(tmp_path)
    site.data["docker"] = {"registry_mirrors": [value]}
    with pytest.raises(SiteFileInvalid, match=r"docker\.registry_mirrors"):
        read_site_file(site.write(), environ={}, now=NOW)


@pytest.mark.parametrize("value", REFUSED_REGISTRIES)
def test_a_registry_that_docker_does_not_take_is_refused_at_the_check(value: str) -> None:
    assert insecure_registries([value])


@pytest.mark.parametrize(
    "flaw",
    [
        mirrors(["user:Secret123@m.example.com"]),
        mirrors(["https://user:Secret123@m.example.com:x"]),
        insecure_registries(["https://user:Secret123@m.example.com"]),
        insecure_registries(["user:Secret123@m.example.com"]),
    ],
)
def test_a_password_in_an_address_is_not_quoted(flaw: Flaw | None) -> None:
    assert flaw is not None
    assert "m.example.com" in flaw.what
    assert "Secret123" not in f"{flaw.what} {flaw.right}"


def test_what_docker_takes_is_taken() -> None:
    assert insecure_registries(TAKEN_REGISTRIES) is None
    assert mirrors(["https://m.example.com", "http://10.20.0.9:5000/"]) is None


# An engine in files: a reload takes daemon.json over, unless a line in `refuses` is in it; then it keeps what it has.
SYSTEMCTL = """
cd {home}
echo "$*" >> calls
[ "$1" = reload-or-restart ] || exit 0
while read -r word; do
  grep -q "$word" daemon.json 2> /dev/null || continue
  echo "invalid configuration: $word https://u:pw@m/" > log
  exit 0
done < refuses
[ -e daemon.json ] && cp daemon.json running || echo '{{}}' > running
exit 0
"""
DOCKER = """
cd {home}
python3 - <<'PYTHON'
import ipaddress, json
d = json.load(open("running"))
networks = [str(ipaddress.ip_network(r, strict=False)) for r in d.get("insecure-registries", []) if "/" in r]
names = {{r: {{}} for r in d.get("insecure-registries", []) if "/" not in r}}
mirrors = [m.rstrip("/") + "/" for m in d.get("registry-mirrors", [])]
print(json.dumps({{"Mirrors": mirrors, "IndexConfigs": names, "InsecureRegistryCIDRs": networks}}))
PYTHON
"""


class Node(LocalHost):
    """A node with such an engine."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.file = home / "daemon.json"

    def apply(self, wanted: str | None, mirrors: list[str], insecure: list[str]) -> str:
        given = {
            "path": str(self.file),
            "wanted": wanted,
            "registry_mirrors": mirrors,
            "insecure_registries": insecure,
        }
        # It asks for seconds whether the settings are in force.
        source = PROGRAM.replace("15, 0.2", "0.5, 0.1")
        how: str = self.python(source, given)["how"]
        return how

    @property
    def calls(self) -> list[str]:
        return (self.home / "calls").read_text().splitlines()

    @property
    def running(self) -> Any:
        return json.loads((self.home / "running").read_text())


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    tools = tmp_path / "bin"
    program(tools, "systemctl", SYSTEMCTL.format(home=tmp_path))
    program(tools, "docker", DOCKER.format(home=tmp_path))
    program(tools, "journalctl", f"cat {tmp_path}/log")
    program(tools, "dockerd", "echo 'unknown flag: --validate'; exit 125")
    (tmp_path / "running").write_text("{}")
    (tmp_path / "refuses").write_text("")
    (tmp_path / "calls").write_text("")
    (tmp_path / "log").write_text("")
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    return Node(tmp_path)


def test_a_network_is_in_force_as_docker_writes_it_and_nothing_is_restarted_twice(node: Node) -> None:
    insecure = ["10.20.0.1/16", "a:5000"]
    assert node.apply(merged(None, [], insecure), [], insecure) == "reloaded"
    assert node.apply(None, [], insecure) == ""
    assert node.calls == ["reload-or-restart docker"]
    assert merged(node.file.read_text(), [], ["10.20.0.0/16"]) == node.file.read_text()


@pytest.mark.parametrize("before", ['{"debug": true}\n', None], ids=["a file", "none"])
def test_the_file_from_before_is_back_when_the_engine_does_not_take_the_new_one(
    before: str | None, node: Node
) -> None:
    if before is not None:
        node.file.write_text(before)
    (node.home / "refuses").write_text("bad.example.com\n")
    mirror = ["https://bad.example.com"]
    with pytest.raises(RemoteCommandFailed, match=r"does not take .*bad\.example\.com.*put back") as caught:
        node.apply(merged(before, mirror, []), mirror, [])
    assert "u:pw" not in str(caught.value)
    assert (node.file.read_text() if node.file.exists() else None) == before
    assert node.running == ({} if before is None else {"debug": True})
    assert not any("restart docker" in call and "reload" not in call for call in node.calls)
    assert sorted(path.name for path in node.home.glob("daemon.json*")) == (["daemon.json"] if before else [])


def test_a_file_that_the_new_engine_says_no_to_is_not_given_to_the_running_one(node: Node) -> None:
    program(node.home / "bin", "dockerd", "echo 'unable to configure: invalid mirror' >&2; exit 1")
    with pytest.raises(RemoteCommandFailed, match="invalid mirror"):
        node.apply(merged(None, ["https://a.example.com"], []), ["https://a.example.com"], [])
    assert not node.file.exists()
    assert node.running == {}


def test_a_run_that_was_killed_between_write_and_reload_still_knows_what_stood_there(node: Node) -> None:
    mirror = ["https://bad.example.com"]
    (node.home / "refuses").write_text("bad.example.com\n")
    node.file.write_text(merged(None, mirror, []))
    (node.home / "daemon.json.harbor-ha-before").write_text('{"debug": true}')
    with pytest.raises(RemoteCommandFailed):
        node.apply(None, mirror, [])
    assert node.file.read_text() == '{"debug": true}'


def test_a_file_of_the_operators_that_is_not_in_force_is_left_alone(node: Node) -> None:
    mirror = ["https://bad.example.com"]
    (node.home / "refuses").write_text("bad.example.com\n")
    node.file.write_text(merged(None, mirror, []))
    with pytest.raises(RemoteCommandFailed, match="does not take"):
        node.apply(None, mirror, [])
    assert json.loads(node.file.read_text())["registry-mirrors"] == mirror
