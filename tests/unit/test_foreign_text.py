"""Text of programs and of other people's files may be in any encoding: it raises nothing but our errors."""

import ast
from pathlib import Path

import pytest

from tasks.errors import Refused
from tasks.harbor import override

ROOT = Path(__file__).parents[2]
# What makes text of bytes that are ASCII by themselves.
_OURS = {"b64encode", "hexlify"}
# Read and written by this software alone, and checked by a checksum before or after.
_CHECKED = {
    "tasks/backup/format/blobs.py",
    "tasks/backup/night/known.py",
    "tasks/backup/restore/on_node/make_links.py",
    "tasks/backup/restore/on_node/receive_blobs.py",
    "tasks/backup/restore/restore_blobs.py",
    "tasks/hosts/connection.py",
    "tasks/storage/on_node/blob_producer.py",
}


def strict_decodings(source: str) -> list[int]:
    """Lines on which bytes become text by a rule that may raise."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [
        call.lineno
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and call.func.attr == "decode"
        and not call.args
        and not call.keywords
        and not _is_ours(call.func.value)
    ]


def strict_readings(source: str) -> list[int]:
    """Lines on which a file is read as text by a rule that may raise, or by the rule of whatever locale a node has."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    found = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "open"]
    return [call.lineno for call in found if not (_binary(call) or _has(call, "errors"))]


def _binary(call: ast.Call) -> bool:
    modes = [*call.args[1:2], *(word.value for word in call.keywords if word.arg == "mode")]
    return any(isinstance(mode, ast.Constant) and "b" in str(mode.value) for mode in modes)


def _has(call: ast.Call, name: str) -> bool:
    return any(word.arg == name for word in call.keywords)


def _is_ours(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr in _OURS


def test_a_strict_decoding_is_found() -> None:
    assert strict_decodings("a = done.stdout.decode()\nb = base64.b64encode(x).decode()") == [1]


@pytest.mark.parametrize("package", ["blocks", "tasks", "flows", "deployments"])
def test_bytes_of_others_are_decoded_by_a_rule_that_does_not_raise(package: str) -> None:
    found = {}
    for path in (ROOT / package).rglob("*.py"):
        name = str(path.relative_to(ROOT))
        lines = strict_decodings(path.read_text(encoding="utf-8"))
        if lines and name not in _CHECKED:
            found[name] = lines
    # The one whose error is told in a sentence, below, and keys that the file has made itself.
    assert set(found) <= {"tasks/harbor/override.py", "deployments/init/made.py"}, found


def test_a_strict_reading_is_found() -> None:
    assert strict_readings("open(a)\nopen(a, 'rb')\nopen(a, errors='replace')\nopen(a, 'w')") == [1, 4]


def test_files_of_a_node_are_read_by_a_rule_that_does_not_raise() -> None:
    found = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / "tasks").rglob("on_node/*.py")
        if (lines := strict_readings(path.read_text(encoding="utf-8")))
    }
    # A list of package sources that the program itself has made.
    assert set(found) <= {"tasks/hosts/on_node/supply_probe.py"}, found
    assert sum(map(len, found.values())) == 1


def test_an_override_in_another_encoding_is_refused_in_a_sentence() -> None:
    with pytest.raises(Refused, match="save the file as UTF-8"):
        override._text("# für das Büro".encode("latin-1"))
