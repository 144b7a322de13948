"""Where a YAML text is broken, in words of ours: a parser quotes what it stumbles over, and that may be a password."""

from typing import Any

import yaml


def yaml_fault(text: str, error: Exception) -> str:
    """Say in a sentence where a text is not YAML; nothing of the text is in it.

    Args:
        text: what was read.
        error: what PyYAML or ruamel raised; both know the place.
    """
    mark: Any = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        position = getattr(error, "position", None)
        if not isinstance(position, int):
            return "It is not valid YAML: a value in it cannot be read as what it looks like."
        line = text.count("\n", 0, position) + 1
        if "\udc80" <= text[position : position + 1] <= "\udcff":
            return f"In line {line} something is not UTF-8: save the file as UTF-8."
        return f"In line {line} is a character that YAML does not allow: remove it."
    where = f"In line {mark.line + 1}"
    if type(error).__name__ == "DuplicateKeyError":
        return f"{where} stands a key that was given before: remove one of the two."
    lines = text.splitlines()
    if mark.line < len(lines) and "\t" in lines[mark.line][: mark.column + 1]:
        return f"{where} is a tab: YAML is indented with spaces only."
    if getattr(error, "problem", None) == "contains itself":
        return f"{where} is an anchor that contains itself: remove it."
    return f"{where}, column {mark.column + 1}, it is not valid YAML: look at colons, quotes and indentation."


def duplicate_keys(text: str) -> list[int]:
    """List the lines, 1 for the first, of keys that their mapping has already; YAML itself takes the last of them.

    Raises:
        yaml.YAMLError: it is not YAML.
    """
    found: list[int] = []
    known: set[int] = set()
    ahead = [yaml.compose(text, Loader=yaml.SafeLoader)]
    while ahead:
        node = ahead.pop()
        if node is None or id(node) in known:
            continue
        known.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            ahead += node.value
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                name = str(key.value)
                found += [key.start_mark.line + 1] if name in seen else []
                seen.add(name)
                ahead += [key, value]
    return sorted(found)
