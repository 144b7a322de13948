"""Is an answer right by itself? The same rules as `apply`, before anything is written."""

import fnmatch
import os
import re
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from blocks import value_rules
from deployments.init.questions import Question

ADDRESS = re.compile(r"(?:(?P<user>[^@\s]+)@)?(?P<address>[^@:\s]+)(?::(?P<port>\d{1,5}))?")


def flaw_of(question: Question, text: str) -> str:
    """Say what is wrong with an answer and what would be right; empty when nothing is."""
    if not text:
        return "" if question.optional else "an answer is needed"
    if question.choices and text not in question.choices:
        return f"{text} is not a choice -> {' | '.join(question.choices)}"
    if question.number and not (text.isdigit() and 1 <= int(text) <= 65535):
        return f"{text} is not a port -> a number from 1 to 65535"
    if question.path.startswith("nodes."):
        return node_flaw(text)
    if question.path == "harbor.installer":
        return _installer_flaw(text)
    return value_flaw(question.path, SecretStr(text) if question.file else text)


def value_flaw(path: str, value: Any) -> str:
    """Say what the site file's rules have against a value; empty when nothing."""
    for pattern, rule in value_rules.RULES:
        # Commands are lists, and are judged when the whole file is.
        if fnmatch.fnmatchcase(path, pattern) and not path.endswith("_command"):
            flaw = rule(value)
            if flaw:
                return f"{flaw.what} -> {flaw.right}"
    return ""


def node_flaw(text: str) -> str:
    """Say why a text is not `[USER@]ADDRESS[:PORT]`; empty when it is."""
    parts = ADDRESS.fullmatch(text)
    if parts is None:
        return f"{text!r} is not an address -> [USER@]ADDRESS[:PORT]"
    return value_flaw("nodes.x.address", parts["address"])


def _installer_flaw(text: str) -> str:
    if text.startswith("https://"):
        return ""
    path = Path(text).expanduser()
    if path.is_file() and os.access(path, os.R_OK):
        return ""
    return f"cannot read {path} -> a file on this machine, or an https:// address"
