"""Changes of a YAML text that leave everything else in it as it was written, remarks included."""

from collections.abc import Iterable, Iterator
from typing import Any

import yaml


def commented_out(text: str, paths: Iterable[str]) -> str:
    """Make remarks of keys and what belongs to them.

    Args:
        text: valid YAML.
        paths: dotted paths of the keys. One within `{…}`, or that is not there, is left as it is.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    lines = text.split("\n")
    for path in paths:
        for first, last, column in _places(root, path.split(".")):
            for number in range(first, last + 1):
                line = lines[number]
                lines[number] = f"{line[:column]}# {line[column:]}" if line.strip() else line
    return "\n".join(lines)


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
    own = int(key.end_mark.line)
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
