"""YAML read strictly: duplicate keys are mistakes, and every key knows its line."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from blocks.problems import Problem, SiteFileInvalid
from blocks.yaml_fault import yaml_fault


@dataclass
class YamlSource:
    """A YAML document as plain data.

    Attributes:
        data: the document, of dicts with text keys, lists and scalars.
        lines: dotted path of a key to its line, 1 for the first.
        problems: duplicate keys and keys that are not text.
    """

    data: Any
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def read_yaml(path: Path) -> YamlSource:
    """Read one YAML document from a file. Raise SiteFileInvalid, which quotes nothing, when it is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise _refusal(path, "the file", f"cannot be read: {reason}", "a readable YAML file") from error
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        source = YamlSource(data=None)
        source.data = None if node is None else _plain(loader, node, "", source, ())
        return source
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _refusal(path, "the file", yaml_fault(text, error), "YAML, indented with spaces") from None


def _plain(
    loader: yaml.SafeLoader, node: yaml.Node, path: str, source: YamlSource, above: tuple[yaml.Node, ...]
) -> Any:
    if node in above:
        raise yaml.MarkedYAMLError("an anchor", node.start_mark, "contains itself", node.start_mark)
    if isinstance(node, yaml.MappingNode):
        return dict(_pairs(loader, node, path, source, (*above, node)))
    if isinstance(node, yaml.SequenceNode):
        return [
            _plain(loader, item, f"{path}.{i}", source, (*above, node)) for i, item in enumerate(node.value)
        ]
    return loader.construct_object(node)


def _pairs(
    loader: yaml.SafeLoader,
    node: yaml.MappingNode,
    path: str,
    source: YamlSource,
    above: tuple[yaml.Node, ...],
) -> Iterator[tuple[str, Any]]:
    for key_node, value_node in node.value:
        # The text as written: YAML 1.1 reads the key `no` as False and `1` as a number.
        key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
        line = key_node.start_mark.line + 1
        here = f"{path}.{key}" if path else key
        if here in source.lines:
            source.problems.append(_duplicate(here, line, source.lines[here]))
            continue
        source.lines[here] = line
        yield key, _plain(loader, value_node, here, source, above)


def _duplicate(path: str, line: int, first: int) -> Problem:
    if path.startswith("nodes.") and path.count(".") == 1:
        return Problem(
            path, f"two nodes have this name, the other in line {first}", "one name for each node", line=line
        )
    return Problem(path, f"is given twice, first in line {first}", "remove one of the two", line=line)


def _refusal(path: Path, where: str, what: str, right: str) -> SiteFileInvalid:
    return SiteFileInvalid(str(path), [Problem(where, what, right)])
