"""A history as somebody reads it, and made as short as it can be."""

from collections.abc import Callable
from dataclasses import replace

from tests.simulation.history import Outcome, Plan, run


def told(outcome: Outcome) -> str:
    """Tell a history: what it was given, what happened, what was violated."""
    plan = outcome.plan
    lines = [f"seed {plan.seed}: {plan.setting}", *(f"  {event}" for event in plan.events)]
    lines += [f"  at boundary {number}: {kind} {seconds:.0f} s" for number, kind, seconds in plan.fates]
    lines += [f"{at:8.1f}  {text}" for at, text in outcome.story]
    lines += [f"=> {violation.invariant}: {violation.text}" for violation in outcome.violations]
    return "\n".join(lines)


def shrunk(plan: Plan, invariant: str, rerun: Callable[[Plan], Outcome] = run) -> Plan:
    """Drop events and fates one by one as long as the same invariant is violated."""

    def fails(candidate: Plan) -> bool:
        return any(violation.invariant == invariant for violation in rerun(candidate).violations)

    smaller = True
    while smaller:
        smaller = False
        candidates = [
            replace(plan, events=plan.events[:number] + plan.events[number + 1 :])
            for number in range(len(plan.events))
        ]
        candidates += [
            replace(plan, fates=plan.fates[:number] + plan.fates[number + 1 :])
            for number in range(len(plan.fates))
        ]
        for candidate in candidates:
            if fails(candidate):
                plan, smaller = candidate, True
                break
    return plan
