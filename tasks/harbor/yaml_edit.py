"""Changes of a YAML text that leave everything else in it as it was written, remarks included."""

from collections.abc import Iterable, Iterator
from typing import Any

import yaml

# No YAML holds it: such a text is never what was wanted.
_UNREADABLE = object()


def commented_out(text: str, paths: Iterable[str]) -> str:
    """Make remarks of keys and what belongs to them.

    Args:
        text: YAML; other text is given back.
        paths: dotted paths of the keys. One within `{…}`, one that others refer to, or one that is not there is left
            as it is.
    """
    for path in paths:
        before = _read(text)
        changed = text if before is _UNREADABLE else _commented_out(text, path.split("."))
        text = changed if _read(changed) == _without(before, path.split(".")) else text
    return text


def _commented_out(text: str, keys: list[str]) -> str:
    lines = text.split("\n")
    for first, last, column in _places(yaml.compose(text, Loader=yaml.SafeLoader), keys):
        for number in range(first, min(last + 1, len(lines))):
            line = lines[number]
            lines[number] = f"{line[:column]}# {line[column:]}" if line.strip() else line
    return "\n".join(lines)


def _read(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except Exception:  # besides YAMLError: ValueError for a 31st of February, TypeError…
        return _UNREADABLE


def _without(tree: Any, keys: list[str]) -> Any:
    # A section whose last key became a remark has no value.
    if not isinstance(tree, dict):
        return tree
    first, more = keys[0], keys[1:]
    kept = {name: value for name, value in tree.items() if more or str(name) != first}
    if more and first in kept:
        kept[first] = _without(kept[first], more)
    return kept or None


def _places(node: Any, keys: list[str]) -> Iterator[tuple[int, int, int]]:
    if not isinstance(node, yaml.MappingNode) or node.flow_style:
        return
    for key, value in node.value:
        if key.value != keys[0]:
            continue
        if len(keys) > 1:
            yield from _places(value, keys[1:])
        else:
            yield key.start_mark.line, _last_line(key, value), key.start_mark.column


def _last_line(key: Any, value: Any) -> int:
    own = int(key.start_mark.line)
    if value.start_mark.line < key.start_mark.line:
        # An alias: what it stands for was written further up.
        return own
    if isinstance(value, yaml.MappingNode) and not value.flow_style:
        return max([own, *(_last_line(*pair) for pair in value.value)])
    if isinstance(value, yaml.SequenceNode) and not value.flow_style:
        return max([own, *(_last_line(item, item) for item in value.value)])
    end = value.end_mark
    last = int(end.line)
    return max(own, last - 1 if end.column == 0 and last > value.start_mark.line else last)
