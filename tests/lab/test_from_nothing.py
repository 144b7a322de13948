"""From nothing to a site that fails over by itself, by the words of the pages alone.

A bare host gets a checkout and is made the orchestrator of two other bare hosts: the commands are the blocks of
README.md and docs/operations.md as they stand there, and `init` is answered as somebody would who reads what it asks.
Then the primary's power is cut twice and nobody touches anything: once the watcher calls, once Prometheus and
Alertmanager do, Debian's packages with the files that are shipped.

What the host has besides is what a company has: a mirror for pip, and a command that switches machines off.
"""

import json
import re
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from blocks import HarborSite
from blocks.site_file import read_site_file
from lab import keys
from lab.site_file import find_installer
from lab.site_lab import Lab
from lab.topology import BUCKET, HOSTNAME, PAIR, REGION, REPOSITORY
from tasks.errors import HarborHaError
from tasks.harbor.api import HarborApi
from tasks.harbor.oci import Registry, make_image
from tasks.harbor.web import Endpoint, through_balancer
from tests.lab.bare_host import CHECKOUT, NODE, WHEELS, Machine, bring_checkout
from tests.lab.conversation import Answer, talk
from tests.lab.power_supply import power_supply

README, OPERATIONS = REPOSITORY / "README.md", REPOSITORY / "docs" / "operations.md"
SITE_DIRECTORY = "/etc/harbor-ha/main"
POWER_OFF = "/usr/local/bin/power-off"
PROJECT = "untouched"
# From the cut to a push that gets through; an installation in containers on the lab's one machine. Measured ones stand
# in docs/failover.md: here it is proven that it happens, by what the pages say.
WATCHER_LIMIT_S, ALERT_LIMIT_S = 90.0, 120.0

# Ten minutes of installing, so with the exhaustive ones: `make test-faults`.
pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]


def block_of(page: Path, *words: str) -> list[str]:
    """The lines of the one block of a page that has all the words."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```$", text, re.M | re.S)
    (block,) = [block for block in blocks if all(word in block for word in words)]
    return [line.strip() for line in block.splitlines()]


class Newcomer:
    """Somebody with a bare host, two more, and the pages.

    Args:
        machine: with a checkout.
        scratch: a directory of this machine, for what is looked at here.
    """

    def __init__(self, machine: Machine, scratch: Path) -> None:
        self.machine, self.lab = machine, machine.lab
        self.scratch = scratch
        self.installer = find_installer(self.lab.topology.harbor)
        self.installer_there = f"/srv/{self.installer.path.name}"

    def type(self, line: str, *, status: int = 0, timeout: float = 1500.0) -> str:
        """Type a line of a page, where the checkout is."""
        return self.machine.run(f"cd {CHECKOUT}; {line}", status=status, timeout=timeout)

    def init(self, line: str) -> str:
        """Type the line of `init`, and answer."""
        return talk(self.lab, NODE, f"cd {CHECKOUT}; {line}", self._answers())

    def _answers(self) -> dict[str, Answer]:
        address = self.lab.node_address
        return {
            "Short name of the site": "",
            "Address of node-a": address("node-a"),
            "Address of node-b": address("node-b"),
            "Enter when it is there": self._authorize,
            "has the host key": self._compare,
            "Harbor's offline installer": self.installer_there,
            "Its SHA-256 checksum": "",
            "Its version": "",
            "Host name that clients use": HOSTNAME,
            "Address of the load balancer": address("lb"),
            "Kind of load balancer": "",
            "Address of its runtime API": "",
            "Port of it": "",
            "Address of Redis": address("redis"),
            "Port of Redis": "",
            "Password of Redis": self._secret("redis-password"),
            "Where the NAS is mounted": "/mnt/nas",
            "What to mount there": "",
            "Name of the OSS bucket": BUCKET,
            "Region of the bucket": REGION,
            "Endpoint": f"http://{address('oss')}:9000",
            "AccessKey ID": keys.OSS_ACCESS_KEY_ID,
            "AccessKey secret": self._secret("oss-access-key-secret"),
            "Time zone": "",
            "Command that switches a machine off": f"{POWER_OFF} {{node}}",
            "Certificate: PEM file": "",
            "age public key": "",
        }

    def _secret(self, name: str) -> str:
        return keys.secret(self.lab.topology, name).strip()

    def _authorize(self, screen: str) -> str:
        """Put the line that it shows where it says."""
        (line,) = re.findall(r"^ *(ssh-\S+ \S+ harbor-ha)$", screen, re.M)
        for node in PAIR:
            self.lab.exec(node, ["bash", "-c", f"echo {shlex.quote(line)} >> ~root/.ssh/authorized_keys"])
        return ""

    def _compare(self, screen: str) -> str:
        """Run on the node what it says, and compare."""
        node, shown, command = re.findall(
            r"(\S+) \(\S+\) has the host key (\S+); `([^`]+)` there says the same", screen
        )[-1]
        return "yes" if shown in self.lab.exec(node, ["sh", "-c", command]).stdout else "no"

    def wait_until_whole(self, line: str) -> str:
        """Type the line of the doctor until nothing is broken; return what it said."""
        told = ""

        def whole() -> bool:
            nonlocal told
            told = self.type(f"{line} || true", timeout=300)
            return bool(re.search(r"^ok +watcher: ", told, re.M)) and not re.search(r"^broken ", told, re.M)

        wait_for(
            whole, 300.0, lambda: told + self.type("journalctl --no-pager -n 40 -u 'harbor-ha-*' || true")
        )
        return told

    def calls(self) -> bool:
        """Whether Alertmanager still has an alert that calls; the doctor's drill leaves one for a minute."""
        told = self.machine.run("curl -s http://127.0.0.1:9093/api/v2/alerts")
        return "HarborPrimaryDown" in [alert["labels"]["alertname"] for alert in json.loads(told)]

    def runs(self) -> list[dict[str, Any]]:
        """All runs of failover, the first one first."""
        told = self.machine.run(_RUNS, timeout=60)
        runs: list[dict[str, Any]] = json.loads(told.splitlines()[-1])
        return runs

    def primary(self) -> str:
        """The one node that takes writes."""
        ask = ["runuser", "-u", "postgres", "--", "psql", "-XtAc", "SELECT NOT pg_is_in_recovery()"]
        (found,) = [node for node in PAIR if self.lab.exec(node, ask, check=False).stdout.strip() == "t"]
        return found

    def endpoint(self) -> Endpoint:
        """The way of clients, by the files that `init` has written."""
        there = self.scratch / "main"
        if not there.exists():
            self.machine.fetch(SITE_DIRECTORY, there)
            file = there / "site.yml"
            file.write_text(file.read_text().replace(self.installer_there, str(self.installer.path)))
        site: HarborSite = read_site_file(there / "site.yml", environ={})
        return through_balancer(site)

    def push(self, tag: str) -> bool:
        """Push an image as a client does; whether it was taken."""
        try:
            with Registry(self.endpoint(), timeout=3.0) as registry:
                registry.push(f"{PROJECT}/image", tag, make_image(tag.encode()))
        except HarborHaError:
            return False
        return True


def wait_for(condition: Callable[[], bool], limit: float, what: Callable[[], str]) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.2)


@pytest.fixture(scope="module")
def newcomer(standing_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    """Three bare hosts, and a checkout on one; bare again afterwards, with nothing on what they share."""
    _make_bare(standing_lab)
    scratch = tmp_path_factory.mktemp("from-nothing")
    with power_supply(standing_lab) as url:
        machine = bring_checkout(standing_lab, scratch)
        made = Newcomer(machine, scratch)
        machine.write("/etc/pip.conf", f"[global]\nno-index = true\nfind-links = {WHEELS}\n")
        machine.write(POWER_OFF, _POWER_OFF.format(url=url), "755")
        machine.copy(made.installer.path, made.installer_there)
        machine.run(f"chmod 644 {made.installer_there}")
        yield made
    _make_bare(standing_lab)


def _make_bare(lab: Lab) -> None:
    lab.heal()
    for machine in lab.machines():
        if not lab.is_running(machine):
            lab.start(machine)
    lab.recreate(*PAIR, NODE)
    lab.empty_shared()


def test_the_block_of_the_readme_makes_a_site_out_of_bare_hosts(newcomer: Newcomer) -> None:
    lines = block_of(README, "scripts/install-orchestrator", "harbor-ha init")
    for line in lines[:-1]:
        told = newcomer.init(line) if line.startswith("harbor-ha init") else newcomer.type(line)
        print(f"$ {line}\n{told[-1500:]}")
    assert lines[-1] == "harbor-ha doctor main"
    told = newcomer.wait_until_whole(lines[-1])
    for link in ("site", "fence", "watcher", "Prefect", "runner", "a call", "backup"):
        assert re.search(rf"^ok +{link}: ", told, re.M), told
    with HarborApi(newcomer.endpoint(), timeout=10.0) as api:
        api.ensure_project(PROJECT)
    assert newcomer.push("before")


def test_the_alerts_are_set_up_by_the_page(newcomer: Newcomer) -> None:
    """Its files are merged into those of Debian's packages, its token is copied by its command, and it is tried."""
    packages = "prometheus prometheus-alertmanager"
    newcomer.type(f"apt-get -qq update; DEBIAN_FRONTEND=noninteractive apt-get -y -qq install {packages}")
    for line in block_of(OPERATIONS, "install -m 400", "receiver-token"):
        newcomer.type(line)
    _merge_prometheus(newcomer.machine)
    newcomer.type("cp deployments/alerts/alertmanager.yml /etc/prometheus/alertmanager.yml")
    newcomer.type("systemctl restart prometheus prometheus-alertmanager")
    (doctor,) = block_of(OPERATIONS, "harbor-ha doctor main --prometheus")
    told = newcomer.wait_until_whole(doctor)
    for link in ("Prometheus", "Alertmanager, receiver", "backup"):
        assert re.search(rf"^ok +{link}: ", told, re.M), told


def test_what_the_page_says_to_try_starts_a_failover_that_does_nothing(newcomer: Newcomer) -> None:
    newcomer.machine.write(f"{CHECKOUT}/alert.json", "\n".join(block_of(OPERATIONS, '"groupKey": "by-hand"')))
    assert newcomer.primary() == "node-a", "the alert of the page is about it"
    *command, _answer, status = block_of(OPERATIONS, "receiver-token", "@alert.json")
    told = newcomer.type("\n".join(command).removeprefix("$ "))
    assert told.strip().splitlines()[-1] == status == "202", told
    (run,) = json.loads(told.strip().splitlines()[0])["runs"]
    assert run["alert"] == "HarborPrimaryDown"
    assert newcomer.primary() == "node-a"


def test_a_power_cut_is_survived_untouched_by_the_watcher(newcomer: Newcomer) -> None:
    run = _survive(newcomer, WATCHER_LIMIT_S)
    assert "watcher" in run["tags"], run


def test_a_power_cut_is_survived_untouched_by_prometheus_and_alertmanager(newcomer: Newcomer) -> None:
    """The watcher is a service of its own that starts nothing, as the page has it for who wants that."""
    serve, watch = (_exec_start(newcomer.machine, f"harbor-ha-{unit}") for unit in ("runner", "watch"))
    _override(newcomer.machine, "harbor-ha-runner", serve.replace(" serve ", " serve --no-watch "))
    _override(newcomer.machine, "harbor-ha-watch", watch.replace(" watch ", " watch --no-calls "))
    # The second failover in a few minutes is held back otherwise, and rightly.
    newcomer.type(f"sed -i 's/^failover:.*/&\\n  cooldown_s: 0/' {SITE_DIRECTORY}/site.yml")
    newcomer.type(f"harbor-ha apply {SITE_DIRECTORY}/site.yml")
    newcomer.type(
        "systemctl daemon-reload; systemctl enable --now harbor-ha-watch; systemctl restart harbor-ha-runner"
    )
    run = _survive(newcomer, ALERT_LIMIT_S)
    assert run["parameters"]["reason"] == "alert HarborPrimaryDown", run
    assert "alertmanager" in run["tags"], run


def _survive(newcomer: Newcomer, limit: float) -> dict[str, Any]:
    """Cut the primary's power, touch nothing until a push gets through; bring it back; return the run that did it."""
    (doctor,) = block_of(OPERATIONS, "harbor-ha doctor main --prometheus")
    newcomer.wait_until_whole(doctor)
    wait_for(lambda: not newcomer.calls(), 120.0, lambda: "the alert of the drill does not end")
    old, earlier = newcomer.primary(), {run["id"] for run in newcomer.runs()}
    cut = time.monotonic()
    newcomer.lab.stop(old)
    wait_for(lambda: newcomer.push(f"after-{old}"), limit, lambda: f"runs: {newcomer.runs()}")
    print(f"{time.monotonic() - cut:.1f} s from the power cut of {old} to a push that got through")
    assert newcomer.primary() != old
    with Registry(newcomer.endpoint(), timeout=10.0) as registry:
        registry.pull(f"{PROJECT}/image", "before")

    def promoted() -> list[dict[str, Any]]:
        """What others there were found somebody at work, or nothing to do."""
        return [
            run for run in newcomer.runs() if run["id"] not in earlier and run["state_name"] == "Completed"
        ]

    wait_for(lambda: bool(promoted()), 120.0, lambda: f"runs: {newcomer.runs()}")
    newcomer.lab.start(old)
    newcomer.type(f"harbor-ha run rejoin --site main --watch --param node={old}")
    newcomer.wait_until_whole(doctor)
    (run,) = promoted()
    return run


def _merge_prometheus(machine: Machine) -> None:
    """Merge the rules, and the targets that stand at their head, into the configuration of Debian's package."""
    rules = REPOSITORY / "deployments" / "alerts" / "prometheus-rules.yml"
    jobs = [yaml.safe_load(job) for job in re.findall(r"^# +- (\{job_name.*\})$", rules.read_text(), re.M)]
    assert {job["job_name"] for job in jobs} == {"harbor-ha", "harbor-ha-receiver"}
    there = yaml.safe_load(machine.run("cat /etc/prometheus/prometheus.yml"))
    there["rule_files"] = [*(there.get("rule_files") or []), "/etc/prometheus/harbor-ha.yml"]
    there["scrape_configs"] = [*there["scrape_configs"], *jobs]
    there["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": ["127.0.0.1:9093"]}]}]}
    machine.write("/etc/prometheus/prometheus.yml", yaml.safe_dump(there))
    machine.run(f"cp {CHECKOUT}/deployments/alerts/prometheus-rules.yml /etc/prometheus/harbor-ha.yml")


def _exec_start(machine: Machine, unit: str) -> str:
    (line,) = re.findall(r"^ExecStart=.*$", machine.run(f"cat /etc/systemd/system/{unit}.service"), re.M)
    return str(line)


def _override(machine: Machine, unit: str, exec_start: str) -> None:
    machine.run(f"mkdir -p /etc/systemd/system/{unit}.service.d")
    machine.write(f"/etc/systemd/system/{unit}.service.d/own.conf", f"[Service]\nExecStart=\n{exec_start}\n")


_POWER_OFF = """#!/bin/sh
# As a cloud's API: 0 only when the machine was seen to be off.
exec curl --fail --silent --show-error --max-time 50 --request POST "{url}/$1"
"""
_RUNS = """cd /opt/harbor-ha; set -a; . /etc/harbor-ha/environment; PREFECT_HOME=$(mktemp -d)
.venv/bin/python -c '
import json
from blocks.prefect_api import prefect_api
asked = {"deployments": {"name": {"any_": ["failover"]}}, "sort": "EXPECTED_START_TIME_ASC"}
with prefect_api(timeout=30) as api:
    print(json.dumps(api.post("flow_runs/filter", json=asked).raise_for_status().json()))
'"""
