"""A bare host becomes the orchestrator by one command, and again, and is looked at, and is taken back."""

import time
from collections.abc import Callable, Iterator

import pytest

from lab.site_lab import Lab
from tests.lab.bare_host import CHECKOUT, NODE, WHEELS, Machine, bring_checkout

INSTALL = f"PIP_NO_INDEX=1 PIP_FIND_LINKS={WHEELS} {CHECKOUT}/scripts/install-orchestrator"
UNITS = ("prefect-server", "harbor-ha-runner", "harbor-ha-receiver")

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def machine(standing_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A bare host with a checkout and the lock's packages on it; bare again afterwards."""
    standing_lab.heal()
    standing_lab.recreate(NODE)
    yield bring_checkout(standing_lab, tmp_path_factory.mktemp("orchestrator"))
    standing_lab.recreate(NODE)


def test_a_bare_host_is_told_what_it_lacks_and_nothing_is_changed(machine: Machine) -> None:
    told = machine.run(f"{CHECKOUT}/scripts/install-orchestrator --check", status=1)
    assert "there is no user harbor-ha" in told
    assert "PostgreSQL is not installed" in told
    machine.run("! getent passwd harbor-ha && ! test -e /opt/harbor-ha && ! test -e /etc/harbor-ha")


def test_one_command_makes_it_the_orchestrator(machine: Machine) -> None:
    told = machine.run(INSTALL, timeout=1200)
    assert "The orchestrator runs." in told
    for unit in UNITS:
        assert machine.run(f"systemctl is-active {unit}").strip() == "active"
        assert machine.run(f"systemctl is-enabled {unit}").strip() == "enabled"
    assert "nothing is missing" in machine.run(f"{CHECKOUT}/scripts/install-orchestrator --check")


def test_the_command_needs_no_variables_and_nobody_else_may(machine: Machine) -> None:
    assert "no site is saved" in machine.run("env -i /usr/local/bin/harbor-ha sites")
    assert "sudo harbor-ha" in machine.run("runuser -u nobody -- /usr/local/bin/harbor-ha sites", status=2)
    # The password is asked for, and is in no argument of any process.
    assert "401" in machine.run(_ASK.format(path="admin/version"))
    machine.run(
        '! ps -eo args | grep -F "$(sed -n \'s/^PREFECT_API_AUTH_STRING="admin:\\(.*\\)"/\\1/p\' '
        '/etc/harbor-ha/environment)" | grep -v grep'
    )
    machine.run("test $(stat -c '%a %U' /etc/harbor-ha/environment | tr ' ' -) = 600-root")
    # As a shell reads it too.
    machine.run('set -eu; . /etc/harbor-ha/environment; test -n "$PREFECT_API_AUTH_STRING"')


def test_a_second_time_it_changes_nothing_and_says_so(machine: Machine) -> None:
    before = machine.run(_EVERYTHING)
    told = machine.run(INSTALL, timeout=300)
    assert told.strip() == "Everything is there already; nothing was changed."
    assert machine.run(_EVERYTHING) == before


def test_a_site_of_roots_files_is_applied_by_root_and_served(machine: Machine) -> None:
    """The keys are root's, a secret is in root's environment, and nobody edits a file or restarts a service."""
    lab = machine.lab
    machine.copy(lab.topology.directory, "/root/state")
    text = lab.site_file.read_text().replace(str(lab.topology.directory), "/root/state")
    machine.run("chown -R root: /root/state && chmod -R go= /root/state")
    lab.exec(NODE, ["tee", "/root/site.yml"], stdin=_with_an_installer_of_its_own(text))
    machine.run("install -m 644 /dev/null /var/cache/installer.tgz && chmod 600 /root/site.yml")
    told = machine.run("harbor-ha apply /root/site.yml", timeout=120)
    assert f"site {lab.name} is saved" in told
    assert "harbor-ha-runner was restarted" in told
    assert lab.name in machine.run("harbor-ha sites")
    copy = f"/var/lib/harbor-ha/sites/{lab.name}.json"
    assert machine.run(f"stat -c '%a %U' {copy}").strip() == "600 harbor-ha"
    machine.run("! find /var/lib/harbor-ha -user root | grep .")
    _await(lambda: "schedules run" in machine.run("harbor-ha sites"), "the schedules do not run")
    machine.run(f"harbor-ha remove {lab.name} --yes")
    assert f"--site {lab.name}" not in machine.run("cat /etc/harbor-ha/environment")


def test_a_runner_that_is_killed_for_good_is_named(machine: Machine) -> None:
    machine.run("systemctl mask --runtime --now harbor-ha-runner")
    told = machine.run(f"{CHECKOUT}/scripts/install-orchestrator --check", status=1)
    assert "harbor-ha-runner does not run" in told
    machine.run("systemctl unmask --runtime harbor-ha-runner")
    assert "harbor-ha-runner started" in machine.run(INSTALL, timeout=300)


def test_an_upgrade_is_the_same_command(machine: Machine) -> None:
    """Another lock makes the venv anew, beside; other code is brought; the database and its runs stay."""
    password = machine.run("cat /etc/harbor-ha/environment")
    old = machine.run("readlink /opt/harbor-ha/.venv")
    started = machine.run("systemctl show -p ActiveEnterTimestampMonotonic prefect-server")
    machine.run(
        f"printf '# another\\n' >> {CHECKOUT}/requirements.lock; echo '# new' >> {CHECKOUT}/deployments/serve.py"
    )
    told = machine.run(INSTALL, timeout=1200)
    assert "stopping harbor-ha-runner" in told
    assert told.index("stopping harbor-ha-runner") < told.index("stopping prefect-server")
    assert told.index("prefect-server started") < told.index("harbor-ha-runner started")
    assert machine.run("readlink /opt/harbor-ha/.venv") != old
    assert machine.run("ls /opt/harbor-ha/venvs").count("\n") == 1, "the old one is gone"
    assert machine.run("tail -n 1 /opt/harbor-ha/deployments/serve.py") == "# new\n"
    assert machine.run("systemctl show -p ActiveEnterTimestampMonotonic prefect-server") != started
    assert machine.run("cat /etc/harbor-ha/environment") == password
    machine.run("test -s /var/lib/postgresql/prefect.before")
    assert "nothing was changed" in machine.run(INSTALL, timeout=300)


def test_it_is_taken_away_with_its_data_only_when_that_is_said(machine: Machine) -> None:
    machine.run(f"{CHECKOUT}/scripts/install-orchestrator --uninstall", timeout=300)
    machine.run("! test -e /opt/harbor-ha && ! test -e /usr/local/bin/harbor-ha && test -d /etc/harbor-ha")
    assert "prefect" in machine.run("runuser -u postgres -- psql -tAc 'SELECT datname FROM pg_database'")
    machine.run(f"{CHECKOUT}/scripts/install-orchestrator --uninstall --purge", timeout=300)
    machine.run("! test -e /etc/harbor-ha && ! test -e /var/lib/harbor-ha && ! getent passwd harbor-ha")
    assert "prefect" not in machine.run("runuser -u postgres -- psql -tAc 'SELECT datname FROM pg_database'")
    assert "nothing was changed" in machine.run(
        f"{CHECKOUT}/scripts/install-orchestrator --uninstall --purge"
    )


def _with_an_installer_of_its_own(text: str) -> str:
    lines = text.splitlines(keepends=True)
    return "".join(
        "  installer: /var/cache/installer.tgz\n" if line.startswith("  installer:") else line
        for line in lines
    )


def _await(condition: Callable[[], bool], what: str, limit_s: float = 90.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(1)


_ASK = (
    'python3 -c "import urllib.request as u, urllib.error as e\n'
    "try: print(u.urlopen('http://127.0.0.1:4200/api/{path}').status)\n"
    'except e.HTTPError as error: print(error.code)"'
)
_EVERYTHING = (
    "find /etc /opt /usr/local /var/lib/dpkg /root -xdev -not -path '*/__pycache__*' -not -path '/root/.cache*' "
    "-type f -printf '%p %s %m %u %T@\\n' | sort; "
    "systemctl show -p ActiveEnterTimestampMonotonic prefect-server harbor-ha-runner harbor-ha-receiver"
)
