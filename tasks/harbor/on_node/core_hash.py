"""The hash that compose would give core, worked out before it is needed.

Compose 1 takes half a second of a processor to say it, on every node at once, while clients wait for core.
"""

import contextlib
import os
import re
from typing import Dict, List

from tasks.harbor.on_node.containers import STARTED, compose
from tasks.harbor.on_node.start import start_inputs
from tasks.on_node.lib import STATE_DIR, read, record, state, write

HASHES = "harbor_core_hashes.json"
# One for each database of the files as they are, and of the files before the last few changes.
MOST = 12
ENV_LINE = re.compile(rb"(?m)^([ \t]*-[ \t]*)\./common/config/core/env[ \t]*$")


def known_hashes() -> List[List[str]]:
    """Read what was worked out: pairs of key and hash, the newest last."""
    kept = state(HASHES).get("hashes")
    return kept if isinstance(kept, list) else []


def core_hash(home: str) -> str:
    """Give the hash for the files as they are."""
    known = dict(known_hashes()).get(key_of(home, {}))
    return str(known) if known else compose(home, ["config", "--hash", "core"], 60).split()[-1]


def foresee(home: str, running: str, texts: Dict[str, str]) -> bool:
    """Work out the hash for the files as they would be with some texts; whether that was new.

    The files are not touched: compose is given a copy of its own with core's environment in another place. What comes
    of that is trusted only when, asked in the same way about the files as they are, it says what the running core has.

    Args:
        running: the hash of the core that runs.
        texts: of the files that would differ, by path.
    """
    key, known = key_of(home, texts), known_hashes()
    if key in dict(known) or asked_with(home, {}) != running:
        return False
    found = asked_with(home, texts)
    if found:
        record(HASHES, {"hashes": [*known, [key, found]][-MOST:]})
    return bool(found)


def key_of(home: str, texts: Dict[str, str]) -> str:
    """Name what a hash is of: the files that compose reads, and which compose."""
    return "%s %s" % (start_inputs(home, texts)["compose"], " ".join(state(STARTED).get("compose") or []))


def asked_with(home: str, texts: Dict[str, str]) -> str:
    """Ask compose for the hash with other texts; "" where its file is not as Harbor writes it."""
    shadow, env = STATE_DIR + "/foreseen", home + "/common/config/core/env"
    text, found = ENV_LINE.subn(
        lambda line: line.group(1) + os.fsencode(shadow + "/core.env"),
        read(home + "/docker-compose.yml") or b"",
    )
    content = texts.get(env)
    data = (read(env) or b"") if content is None else content.encode("utf-8", "surrogateescape")
    if found != 1:
        return ""
    copies = {shadow + "/core.env": data, shadow + "/docker-compose.yml": text}
    override = home + "/docker-compose.override.yml"
    files = ["-f", shadow + "/docker-compose.yml", *(["-f", override] if os.path.exists(override) else [])]
    try:
        for path, copy in copies.items():
            write(path, copy, 0o600)
        words = compose(home, [*files, "--project-directory", home, "config", "--hash", "core"], 60).split()
    finally:
        # The environment holds the database's password: it is not kept twice.
        for path in copies:
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
    return words[-1] if words else ""
