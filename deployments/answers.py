"""What the attempts of one outage answered: people are told of the first answer, and of another one, not of each.

Prefect counts for itself how often a run of one name ends in one state, and tells that once in a while
(`deployments/notifications.py`). It cannot compare reasons: a label that a trigger counts by is part of an index of
the server's database, where a reason would be too long, and the seconds in it are others each time.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from deployments.events import body_of
from deployments.runs import ENDED

ANSWER = "harbor-ha.answer"
"""An event: the newest attempt answered what none did before. And its label that names the answer."""

UNWELL = ("Failed", "Crashed", "TimedOut", "Refused")
"""The names of the states that people are told of."""

LOOKED_AT = 61
"""Runs, the newest first: one that has just been started, and those of an hour with one a minute."""

# Ids that are drawn, and words that begin with a digit: numbers, moments, positions in the WAL.
_CHANGING = re.compile(r"\b[0-9a-f]{8,}\b|(?<![\w-])\d[\w,.:/+-]*")


def answer_of(run: Mapping[str, Any]) -> str:
    """Return what a run answered as a short text, without what changes from one attempt to the next.

    Args:
        run: as Prefect tells it.
    """
    message = str((run.get("state") or {}).get("message") or "")
    told = f"{run.get('state_name')}: {_CHANGING.sub('#', message)}"
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def event_of_another_answer(site: str, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the event ANSWER about the newest run that has ended; None when people know its answer.

    They do when it is the first that ended in this state, which Prefect tells by itself, or when one before it
    answered the same.

    Args:
        site: of the runs.
        runs: the attempts of one outage as Prefect tells them, the newest first.
    """
    last, *before = [run for run in runs if run.get("state_type") in ENDED] or [{}]
    alike = [answer_of(run) for run in before if run.get("state_name") == last.get("state_name")]
    if last.get("state_name") not in UNWELL or not alike or answer_of(last) in alike:
        return None
    labels = {"prefect.resource.name": str(last["name"]), ANSWER: answer_of(last)}
    return body_of(site, ANSWER, {}, labels, flow_run=str(last["id"]))
