"""What is wrong with a value, and what would be right."""

import re
from typing import NamedTuple

# Longer ones fill the screen and say no more.
_SHOWN = 200
_LOGIN = re.compile(r"(^|//)[^/\s]*@")


class Flaw(NamedTuple):
    """What is wrong with a value, and what would be right."""

    what: str
    right: str


def shown(address: str) -> str:
    """Write an address for an error: cut, and without the user and the password that may stand before its name."""
    return _LOGIN.sub(r"\1...@", address)[:_SHOWN]
