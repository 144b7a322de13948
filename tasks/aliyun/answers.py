"""Reading what the cloud's API says: it is foreign text, of which only plain words are taken on."""

import re
from collections.abc import Mapping
from typing import Any

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@-]{0,99}")


def records(body: Mapping[str, Any], *keys: str) -> list[Mapping[str, Any]]:
    """Find the list under these keys; what is no mapping in it is left out."""
    value = _under(body, keys)
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def word(body: Mapping[str, Any], *keys: str) -> str:
    """Read a name, a state or an address under these keys; empty when there is none, or another text."""
    return _plain(_under(body, keys))


def words(body: Mapping[str, Any], *keys: str) -> list[str]:
    """Read the list of words under these keys."""
    value = _under(body, keys)
    return [text for item in value if (text := _plain(item))] if isinstance(value, list) else []


def number(body: Mapping[str, Any], key: str) -> int | None:
    """Read a number from 0 on; None when there is none."""
    value = body.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _under(body: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        body = body.get(key) if isinstance(body, Mapping) else None
    return body


def _plain(value: Any) -> str:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else ""
