"""A mistake in the configuration, told for the operator."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One mistake: the path of the key, what is wrong, what would be right.

    Attributes:
        warning: the site works like this, but the operator should know.
        line: line in the site file, 1 for the first; 0 when it is not known.
    """

    path: str
    what: str
    right: str
    warning: bool = False
    line: int = 0

    def __str__(self) -> str:
        place = f"{self.path} (line {self.line})" if self.line else self.path
        return f"{place}: {self.what} -> {self.right}"


class SiteFileInvalid(Exception):
    """A site file has mistakes; nothing was saved or changed.

    Attributes:
        file: the file as it was named.
        problems: every mistake that was found, in the order of the file.
    """

    def __init__(self, file: str, problems: Iterable[Problem]) -> None:
        self.file = file
        self.problems = list(problems)
        super().__init__(file, self.problems)

    def __str__(self) -> str:
        count = len(self.problems)
        head = f"{self.file} has {count} mistake{'s' if count != 1 else ''}. Nothing was changed."
        return "\n".join([head, *(f"  - {problem}" for problem in self.problems)])


class SiteUnknown(Exception):
    """No site of this name was saved, or it can be read neither from Prefect nor from its local copy."""
