"""Read harbor.yml and the installer's template in one round trip."""

# ruff: noqa: UP006, UP035, UP045 - Python 3.6

from typing import Dict, Optional

from tasks.docker.on_node.lib import payload, read, reply


def look(install_dir: str) -> Dict[str, Optional[str]]:
    """Give both files' text; None for one that is missing."""
    found = {
        "harbor_yml": read(install_dir + "/harbor.yml"),
        "template": read(install_dir + "/harbor.yml.tmpl"),
    }
    return {name: None if data is None else data.decode("utf-8") for name, data in found.items()}


if __name__ == "__main__":
    reply(look(payload()["install_dir"]))
