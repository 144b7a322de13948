"""Harbor after a boot of its node, or a restart of its Docker engine, with nobody there to help."""

import shlex

from blocks import HarborSite
from tasks.guard.on_node.guard_note import state_path
from tasks.harbor.on_node import boot
from tasks.hosts.connection import Host
from tasks.node_program import node_program
from tasks.outcome import Outcome, changed, unchanged
from tasks.postgres.layout import PROGRAM_DIR, STATE_DIR

_BOOT = node_program(boot)

UNIT = "harbor-ha-harbor.service"
_PROGRAM = f"{PROGRAM_DIR}/harbor-boot"


def start_at_boot(site: HarborSite, host: Host) -> Outcome:
    """Have the node start what its Docker engine leaves behind; a second run changes nothing.

    Args:
        site: Harbor's directory, NAS and port.
        host: a node with Harbor installed.
    """
    files = {_PROGRAM: (program(), 0o755), f"/etc/systemd/system/{UNIT}": (unit(site), 0o644)}
    written = [path for path, (text, mode) in files.items() if host.put(path, text, mode=mode)]
    if written:
        host.run(["systemctl", "daemon-reload"])
    if host.run(["systemctl", "is-enabled", UNIT], check=False).stdout.strip() == "enabled" and not written:
        return unchanged(f"{UNIT} is enabled")
    # Again when the unit was rewritten: its [Install] section may have changed.
    host.run(["systemctl", "reenable", UNIT])
    return changed(f"enabled {UNIT}")


def program() -> str:
    """Give the program's text."""
    return "#!/usr/bin/python3\n" + _BOOT


def unit(site: HarborSite) -> str:
    """Give the unit's text.

    Wanted by docker.service, so that a restart of the engine alone runs it too. Tried again until it succeeds:
    a NAS may be mounted minutes later.
    """
    harbor = site.harbor
    home, nas = harbor.install_dir.rstrip("/"), site.nas.path.rstrip("/")
    words = [_PROGRAM, home, nas, str(harbor.https_port), state_path({"state_dir": STATE_DIR})]
    return f"""[Unit]
Description=Harbor HA: starts the containers that Docker could not
After=docker.service network-online.target remote-fs.target
StartLimitIntervalSec=0

[Service]
ExecStart={shlex.join(words)}
Restart=on-failure
RestartSec=10

[Install]
WantedBy=docker.service
"""
