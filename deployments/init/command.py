"""`harbor-ha init`: the conversation from its first question to a checked site file."""

import argparse
import getpass
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from blocks.problems import SiteFileInvalid
from blocks.site_file import inspect_site_file
from deployments.init import keepsakes, nodes
from deployments.init.answers import AGAIN, KEEP, Answers, Ask, Dialogue, Options, Tell
from deployments.init.defaults import default_of
from deployments.init.draft import Draft
from deployments.init.given import Given, problems_of, read_given
from deployments.init.questions import RELEASE, SITE, TOPICS, Question, Topic
from deployments.init.trials import TRIALS

DONE, FAILED, INVALID = 0, 1, 3


def run_init(
    arguments: argparse.Namespace,
    ask: Ask = input,
    ask_secret: Ask = getpass.getpass,
    tell: Tell = print,
) -> int:
    """Write a site file, by questions or from options, and check it.

    Args:
        arguments: of `deployments.init.options`.
        ask: shows a prompt and returns a line.
        ask_secret: the same without showing what is typed.
        tell: shows a line.

    Returns:
        0: the file passes `apply --check` and all that was tried works; 1: something does not work yet, run it again;
        3: wrong answers, and with --yes nothing was written.
    """
    # What a machine answers is told in our words; paramiko would print a traceback between two questions.
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)
    draft = Draft(Path(arguments.directory).expanduser().absolute())
    given, unreadable = read_given(arguments)
    options = Options(tell, given.answers)
    answers: Answers = options if arguments.yes else Dialogue(ask, ask_secret, tell, given.answers)
    problems = [*unreadable, *problems_of(given, draft, complete=arguments.yes)]
    if problems:
        return _told(f"{len(problems)} answers are not right. Nothing was written.", problems)
    try:
        _converse(draft, answers, given)
    except (EOFError, KeyboardInterrupt):
        tell(f"\nWhat is finished is kept: harbor-ha init {arguments.directory} goes on from there")
        return FAILED
    changed = draft.save()
    tell(
        f"{draft.file} is written" if changed else f"{draft.file} has everything already; nothing was changed"
    )
    return _end(draft, tell, options.troubles)


def _converse(draft: Draft, answers: Answers, given: Given) -> None:
    answers.tell(f"The site file and its secrets are kept in {draft.directory}")
    _settle(SITE, draft, answers, given.test)
    _settle_nodes(draft, answers, given)
    keepsakes.ensure_postgres(draft, lambda: nodes.find_major(draft, answers))
    draft.save()
    _settle(RELEASE, draft, answers, given.test)
    for topic in TOPICS:
        _settle(topic, draft, answers, given.test)
    keepsakes.ensure_certificate(draft, answers, given.certificate, given.certificate_key)
    keepsakes.ensure_admin_password(draft)
    keepsakes.ensure_recipients(draft, answers, given.recipients)


def _settle_nodes(draft: Draft, answers: Answers, given: Given) -> None:
    new = not draft.value("nodes")
    line = nodes.ensure_key(draft, answers, given.ssh_key)
    nodes.ask_nodes(draft, answers, given.nodes)
    if new:
        answers.tell(f"On every node this line belongs into ~/.ssh/authorized_keys of its user:\n  {line}")
        if given.test:
            answers.wait("Enter when it is there: ")
    for name in draft.value("nodes"):
        nodes.settle_node(draft, name, answers, given.host_keys.get(name, ""), test=given.test)
    draft.save()


def _settle(topic: Topic, draft: Draft, answers: Answers, test: bool) -> None:
    """Answer what is missing of a topic, and try it until it works or the operator goes on as it is."""
    section = topic.questions[0].path.partition(".")[0]
    if topic.needs and section in draft.document and not draft.document[section]:
        return  # a site without: it was said before
    answers.tell(f"\n{topic.title}")
    again = False
    while True:
        for question in topic.questions:
            _answer(question, topic, draft, answers, again)
            if question.path == topic.needs and not draft.value(question.path):
                draft.document[section] = None
                draft.save()
                return
        problems = TRIALS[topic.trial](draft) if test and topic.trial else []
        said = answers.trouble(topic.title, problems) if problems else KEEP
        if said == KEEP:
            draft.save()
            return
        again = said == AGAIN


def _answer(question: Question, topic: Topic, draft: Draft, answers: Answers, again: bool) -> None:
    if question.when and draft.text(question.when[0]) != question.when[1]:
        return
    there = draft.value(question.path) is not None
    section = question.path.partition(".")[0]
    # What may be left out was left out when the rest of its section was written.
    left_out = question.optional and section in draft.sections
    if (there or left_out) and not again:
        return
    before = draft.text(question.path) or (draft.kept(question.file) if question.file else "")
    text = answers.answer(question, before or default_of(question, draft.text))
    keepsakes.put_answer(draft, question, text, topic.title)


def _end(draft: Draft, tell: Tell, troubles: Sequence[str]) -> int:
    """Check the file as `apply` will, and say what is next."""
    try:
        site, warnings = inspect_site_file(draft.file)
    except SiteFileInvalid as invalid:
        lines = [str(problem) for problem in invalid.problems]
        return _told(f"{draft.file} is not complete yet. Correct it, or run init again.", [*troubles, *lines])
    for warning in warnings:
        tell(f"warning: {warning}")
    for line in keepsakes.reminders(draft):
        tell(line)
    if troubles:
        return _told("This does not work yet; run init again to test it.", troubles, FAILED)
    tell(f"Site {site.name} is described without a mistake. Next: harbor-ha apply {draft.file}")
    return DONE


def _told(head: str, problems: Sequence[str], status: int = INVALID) -> int:
    print("\n".join([head, *(f"  - {problem}" for problem in problems)]), file=sys.stderr)
    return status
