"""The site file while it is being written: what is there already stays, with its comments."""

import contextlib
import io
import os
import tempfile
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from blocks.references import ReferenceBroken, References
from blocks.yaml_source import read_yaml

HEAD = """\
A Harbor site. Check and save it with: harbor-ha apply site.yml
Written by harbor-ha init. All keys are explained in docs/configuration.md.
"""


class Draft:
    """A site file and the secret files beside it.

    Args:
        directory: where they are; made, closed to others, when something is written.

    Raises:
        SiteFileInvalid: there is a site.yml, and it is not YAML.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "site.yml"
        self._yaml = YAML()
        self._yaml.width = 4096
        self._yaml.indent(mapping=2, sequence=4, offset=2)
        self._references = References(directory, os.environ)
        self.found = self.file.exists()
        self.document: Any = None
        if self.found:
            read_yaml(self.file)  # in its words a broken file is told without a quotation
            self.document = self._yaml.load(self.file.read_text(encoding="utf-8"))
        if not isinstance(self.document, CommentedMap):
            self.document = CommentedMap()
            self.document.yaml_set_start_comment(HEAD)
        # What was settled by an earlier run.
        self.sections = frozenset(self.document)
        self._saved = self._text() if self.found else ""

    def value(self, path: str) -> Any:
        """What stands at a path, a reference as it is written; None when there is nothing."""
        here = self.document
        for part in path.split("."):
            if not isinstance(here, dict) or part not in here:
                return None
            here = here[part]
        return here

    def text(self, path: str) -> str:
        """What a path says in the end, its reference followed; empty when nothing is there or it leads nowhere."""
        value = self.value(path)
        if isinstance(value, dict):
            try:
                return self._references.follow(value, secret=False)
            except ReferenceBroken:
                return ""
        return "" if value is None else str(value)

    def kept(self, name: str) -> str:
        """The content of a secret file of an earlier run, empty when there is none."""
        try:
            return (self.directory / name).read_text(encoding="utf-8").rstrip("\n")
        except OSError:
            return ""

    def put(self, path: str, value: Any, comment: str = "") -> None:
        """Set a value; mappings on the way are made."""
        here = self.document
        *above, last = path.split(".")
        for part in above:
            if not isinstance(here.get(part), dict):
                here[part] = CommentedMap()
            here = here[part]
        new = last not in here
        here[last] = value
        if comment and new:
            here.yaml_add_eol_comment(comment, last)

    def title(self, key: str, comment: str) -> None:
        """Put a line of comment over a new section of the file."""
        if key not in self.document:
            self.document[key] = CommentedMap()
            self.document.yaml_set_comment_before_after_key(key, before=f"\n{comment}")

    def put_file(self, path: str, name: str, text: str, comment: str = "", *, replace: bool = False) -> bool:
        """Keep a secret in a file of mode 0600 and refer to it.

        Args:
            path: key of the site file.
            name: of the file, relative to the directory.
            text: its content.
            replace: of a file that is there; otherwise it stays as it is.

        Returns:
            whether the file was written.
        """
        written = self.write_new(name, text, replace=replace)
        self.put(path, reference(name), comment)
        return written

    def write_new(self, name: str, text: str, *, mode: int = 0o600, replace: bool = False) -> bool:
        """Write a file that is complete or not there; one that is there stays unless it is to be replaced."""
        target = self.directory / name
        # Each by itself: of those that `parents` makes only the last has the mode.
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        target.parent.mkdir(exist_ok=True, mode=0o700)
        handle, unfinished = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                os.fchmod(stream.fileno(), mode)
                stream.write(text)
            if replace:
                Path(unfinished).replace(target)
                return True
            try:
                os.link(unfinished, target)
            except FileExistsError:
                return False
            return True
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(unfinished)

    def save(self) -> bool:
        """Write site.yml if anything is new in it, and return whether there was."""
        text = self._text()
        if text == self._saved:
            return False
        self.write_new(self.file.name, text, replace=True)
        self._saved = text
        return True

    def _text(self) -> str:
        stream = io.StringIO()
        self._yaml.dump(self.document, stream)
        return stream.getvalue()


def reference(name: str) -> CommentedMap:
    """The value `{file: NAME}`, in one line."""
    made = CommentedMap(file=name)
    made.fa.set_flow_style()
    return made
