"""What came as options, judged before the first question: all mistakes at once."""

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from blocks import certificates
from blocks.keys import age_recipient_flaw, private_key_flaw
from deployments.init.defaults import default_of
from deployments.init.draft import Draft
from deployments.init.judge import flaw_of, node_flaw, value_flaw
from deployments.init.questions import QUESTIONS, Question


@dataclass(frozen=True)
class Given:
    """The options, files read.

    Attributes:
        answers: by the path of the question.
        nodes: name to `[USER@]ADDRESS[:PORT]`.
        host_keys: name to fingerprint or key.
        ssh_key, certificate, certificate_key: texts, empty when not given.
        test: whether answers are tried.
    """

    answers: Mapping[str, str]
    nodes: Mapping[str, str]
    host_keys: Mapping[str, str]
    ssh_key: str
    certificate: str
    certificate_key: str
    recipients: Sequence[str]
    test: bool


def read_given(arguments: argparse.Namespace) -> tuple[Given, list[str]]:
    """Read the options and the files that they name; return the mistakes besides."""
    problems: list[str] = []
    answers: dict[str, str] = {}
    for question in QUESTIONS:
        text = getattr(arguments, question.path)
        if text is not None:
            secret = _file(question.option, text, problems).rstrip("\r\n") if question.file else text
            answers[question.path] = secret
    texts = dict.fromkeys(("ssh_key", "certificate", "certificate_key"), "")
    for name in texts:
        if path := getattr(arguments, name):
            texts[name] = _file(f"--{name.replace('_', '-')}", path, problems)
    nodes, host_keys = (
        _pairs(option, words, problems)
        for option, words in (("--node", arguments.node), ("--host-key", arguments.host_key))
    )
    recipients = tuple(arguments.age_recipient)
    return Given(
        answers, nodes, host_keys, **texts, recipients=recipients, test=not arguments.no_tests
    ), problems


def problems_of(given: Given, draft: Draft, *, complete: bool) -> list[str]:
    """Return what is wrong with the options, and with `complete` also what is missing of them."""
    found = [*_wrong_nodes(given, draft, complete), *_wrong_keys(given, draft)]
    for question in QUESTIONS:
        if question.path in given.answers:
            flaw = flaw_of(question, given.answers[question.path])
        elif complete and _is_asked(question, given, draft):
            flaw = flaw_of(question, known(question, given, draft))
        else:
            continue
        if flaw:
            found.append(f"{question.option}: {flaw}")
    return found


def known(question: Question, given: Given, draft: Draft) -> str:
    """Give what the answer to a question will be when nobody is asked."""
    by_path = {other.path: other for other in QUESTIONS}
    kept = draft.text(question.path) or (draft.kept(question.file) if question.file else "")
    return (
        kept
        or given.answers.get(question.path, "")
        or default_of(question, lambda path: known(by_path[path], given, draft))
    )


def _is_asked(question: Question, given: Given, draft: Draft) -> bool:
    by_path = {other.path: other for other in QUESTIONS}
    if question.path.startswith("oss."):
        return bool(known(by_path["oss.bucket"], given, draft))
    return question.when is None or known(by_path[question.when[0]], given, draft) == question.when[1]


def _wrong_nodes(given: Given, draft: Draft, complete: bool) -> Iterator[str]:
    there = draft.value("nodes") or {}
    if complete and not there and len(given.nodes) < 2:
        yield "--node: two nodes are needed -> --node node-a=10.0.0.1 --node node-b=10.0.0.2"
    for name, text in given.nodes.items():
        flaw = value_flaw("nodes.x.name", name) or node_flaw(text)
        if flaw:
            yield f"--node {name}: {flaw}"
    for name in given.host_keys:
        if name not in {**there, **given.nodes} and (complete or given.nodes):
            yield f"--host-key {name}: there is no such node"


def _wrong_keys(given: Given, draft: Draft) -> Iterator[str]:
    if given.ssh_key and (flaw := private_key_flaw(given.ssh_key)):
        yield f"--ssh-key: {flaw[0]} -> {flaw[1]}"
    for recipient in given.recipients:
        if wrong := age_recipient_flaw(recipient):
            yield f"--age-recipient: {wrong} -> age1… as age-keygen prints it"
    if bool(given.certificate) != bool(given.certificate_key):
        yield "--certificate and --certificate-key: one is missing -> both, or none for a self-signed one"
    elif given.certificate:
        hostname = draft.text("harbor.hostname") or given.answers.get("harbor.hostname")
        for of in certificates.flaws(given.certificate, given.certificate_key, hostname, datetime.now(UTC)):
            yield f"--certificate{'' if of.of == 'certificate' else '-key'}: {of.what} -> {of.right}"


def _file(option: str, path: str, problems: list[str]) -> str:
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as source:
            text = source.read()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not a text file"
        problems.append(f"{option}: cannot read {path}: {why}")
        return ""
    if not text.strip():
        problems.append(f"{option}: {path} is empty")
    return text


def _pairs(option: str, words: Sequence[str], problems: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            problems.append(f"{option}: {word} is not NAME=…")
        elif name in found:
            problems.append(f"{option}: {name} is given twice")
        else:
            found[name] = text
    return found
