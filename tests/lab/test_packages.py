"""apt on a real node, while something else uses it."""

import time

from tasks.hosts import packages
from tests.lab.site import LabSite

NODE = "node-a"
# apt's locks are fcntl's; `flock` takes other ones.
HOLD = """
import fcntl, time
lock = open("/var/lib/apt/lists/lock", "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
time.sleep(4)
"""


def test_a_machine_that_fetches_its_own_updates_is_waited_for(lab_site: LabSite) -> None:
    lab_site.shell(NODE, f"systemd-run --quiet --unit=updates python3 -c '{HOLD}'")
    try:
        deadline = time.monotonic() + 10
        while not lab_site.holds(NODE, "apt-get update 2>&1 | grep -q 'Could not get lock'"):
            assert time.monotonic() < deadline, "the lock was not taken"
        assert lab_site.holds(NODE, "systemctl is-active updates")
        packages.refresh(lab_site.host(NODE))
        assert not lab_site.holds(NODE, "systemctl is-active updates")
    finally:
        lab_site.shell(NODE, "systemctl stop updates", check=False)
