"""Texts of the site file that are kept elsewhere: `{env: NAME}` and `{file: PATH}`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class ReferenceBroken(Exception):
    """A reference cannot be followed; `what` is wrong and `right` would be right."""

    def __init__(self, what: str, right: str) -> None:
        self.what = what
        self.right = right
        super().__init__(what, right)


@dataclass(frozen=True)
class References:
    """Where references lead.

    Attributes:
        base: directory of the site file; relative paths start here.
        environ: the environment variables.
    """

    base: Path
    environ: Mapping[str, str]

    def follow(self, value: Mapping[str, Any], *, secret: bool) -> str:
        """Return the text that `{env: NAME}` or `{file: PATH}` stands for. Raise ReferenceBroken.

        A secret's file must be closed to other users. One newline at the end is not part of the text, except
        in PEM, where programs such as ssh insist on it.
        """
        if len(value) != 1 or not (set(value) <= {"env", "file"}):
            raise ReferenceBroken("is neither a text nor a reference", "a text, {env: NAME} or {file: PATH}")
        (kind, target), *_ = value.items()
        if not isinstance(target, str) or not target:
            raise ReferenceBroken(f"names no {kind}", "{env: NAME} or {file: PATH}")
        text = self._variable(target) if kind == "env" else self._file(target, secret)
        if not text.strip():
            raise ReferenceBroken(f"is empty: {kind} {target}", "a text that is not empty")
        text = text.removesuffix("\n").removesuffix("\r")
        return f"{text.rstrip()}\n" if text.lstrip().startswith("-----BEGIN ") else text

    def path(self, text: str) -> Path:
        """Return a path of the site file as an absolute one; `~` is the home directory."""
        return (self.base / Path(text).expanduser()).resolve()

    def _variable(self, name: str) -> str:
        if name not in self.environ:
            raise ReferenceBroken(
                f"the environment variable {name} is not set", f"export {name}=… before the command"
            )
        return self.environ[name]

    def _file(self, name: str, secret: bool) -> str:
        path = self.path(name)
        try:
            mode = path.stat().st_mode
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ReferenceBroken(f"{path} is not a text file", "a UTF-8 text file") from error
        except OSError as error:
            raise ReferenceBroken(f"cannot read {path}: {error.strerror}", "a readable file") from error
        if secret and mode & 0o077:
            raise ReferenceBroken(
                f"{path} is open to other users (mode {mode & 0o777:04o})", f"chmod 600 {path}"
            )
        return text
