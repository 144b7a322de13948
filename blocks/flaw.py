"""What is wrong with a value, and what would be right."""

from typing import NamedTuple


class Flaw(NamedTuple):
    """What is wrong with a value, and what would be right."""

    what: str
    right: str
