"""Read all that a decision about Harbor's configuration needs, in one round trip."""

import hashlib
import os
from typing import Any, Dict, List

from tasks.on_node.lib import payload, read, reply


def seal(path: str) -> str:
    """Describe a file by mode and hash; "" when there is none. A key's content stays on the node."""
    data = read(path)
    if data is None:
        return ""
    return f"{os.stat(path).st_mode & 0o777:o} {hashlib.sha256(data).hexdigest()}"


def look(install_dir: str, sealed: List[str]) -> Dict[str, Any]:
    """Give harbor.yml and the template as text, None for a missing one, and the seals of other files."""
    files = {"harbor_yml": "harbor.yml", "template": "harbor.yml.tmpl"}
    found = {name: read(install_dir + "/" + file) for name, file in files.items()}
    texts: Dict[str, Any] = {
        # Text in another encoding is refused by whoever reads it, in a sentence.
        name: None if data is None else data.decode("utf-8", "surrogateescape")
        for name, data in found.items()
    }
    return dict(texts, seals={path: seal(path) for path in sealed})


if __name__ == "__main__":
    given = payload()
    reply(look(given["install_dir"], given["sealed"]))
