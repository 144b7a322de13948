"""Start the Docker engine of this node, now and at boot."""

import shutil
import sys

from tasks.on_node.lib import must, payload, poll, reply, run


def start() -> None:
    """Start the engine and wait until it answers."""
    if shutil.which("docker") is None:
        sys.exit("There is no program `docker` on this node: the engine cannot be asked. Install docker-cli.")
    must(["systemctl", "enable", "--now", "docker"], 120)
    if not poll(lambda: run(["docker", "version"], 20)[0] == 0, 60, 0.2):
        sys.exit(
            "The Docker engine does not answer: " + run(["journalctl", "-u", "docker", "-n", "20"], 20)[1]
        )


if __name__ == "__main__":
    payload()
    start()
    reply({})
