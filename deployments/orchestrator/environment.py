"""The services' environment file: the sites that are served stand in it, as options of `harbor-ha serve`.

Its lines are read by systemd, by a shell and by the command in the path: a value with spaces has quotes.
"""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

_SITES = re.compile(r"^HARBOR_HA_SITES=(?P<quote>[\"']?)(?P<options>.*?)(?P=quote)[ \t]*$", re.MULTILINE)


def served_sites(text: str) -> list[str]:
    """Given the file's text, name the sites that the runner is started for."""
    found = _SITES.search(text)
    return re.findall(r"--site[ =](\S+)", found["options"]) if found else []


def with_site(text: str, name: str) -> str:
    """Give the file's text with a site among those that are served."""
    if name in served_sites(text):
        return text
    found = _SITES.search(text)
    if found is None:
        return f'{text.rstrip()}\nHARBOR_HA_SITES="--site {name}"\n'.lstrip("\n")
    return _replaced(text, f"{found['options']} --site {name}".strip())


def without_site(text: str, name: str) -> str:
    """Give the file's text without a site."""
    found = _SITES.search(text)
    if found is None or name not in served_sites(text):
        return text
    gone = re.sub(rf"--site[ =]{re.escape(name)}(?=\s|$)", "", found["options"])
    return _replaced(text, " ".join(gone.split()))


def change(file: Path, new: Callable[[str], str]) -> bool:
    """Write the file anew if a function of its text says something else; mode 0600, complete or as before.

    Returns:
        whether it was written.
    """
    text = file.read_text(encoding="utf-8")
    wanted = new(text)
    if wanted == text:
        return False
    handle, unfinished = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(wanted)
    Path(unfinished).replace(file)
    return True


def main(words: Sequence[str]) -> int:
    """`forget FILE SITE`: take a site out of the file, and say so."""
    _, file, name = words
    if change(Path(file), lambda text: without_site(text, name)):
        print(f"{name} is not in HARBOR_HA_SITES any more; harbor-ha-runner learns it at its next start")
    return 0


def _replaced(text: str, options: str) -> str:
    return _SITES.sub(lambda _: f'HARBOR_HA_SITES="{options}"', text, count=1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
