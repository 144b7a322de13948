"""The decision tables as a page of the documentation: `python -m flows.rules.render > docs/rules.md`."""

from collections.abc import Iterable, Sequence
from typing import Any

from flows.rules.admission import ADMISSION_RULES
from flows.rules.adoption import ADOPTION_CHECKS
from flows.rules.after_fence import AFTER_FENCE_RULES
from flows.rules.durability import SYNC_RULES
from flows.rules.fence import FENCE_RULES
from flows.rules.last_look import LAST_LOOK_RULES
from flows.rules.primary import PRIMARY_RULES
from flows.rules.promotion import CANDIDATE_CHECKS
from flows.rules.rejoin import REJOIN_RULES
from flows.rules.restart import RESTART_RULES
from flows.rules.resume import RESUME_RULES
from flows.rules.silence import SILENCE_APART_S, SILENCE_LOOKS
from flows.rules.switchover import SWITCH_CHECKS
from flows.rules.table import FACTS_LIMIT_S, Check, Rule
from flows.rules.take_over import TAKE_OVER_CHECKS
from flows.rules.verdict import FINDINGS, Finding
from flows.rules.watch import WATCH_RULES

_INTRODUCTION = f"""# Rules

Rendered from the tables in `flows/rules/` by `python -m flows.rules.render`; a test compares the two.

Every decision is a pure function of facts, policy and the time. In a rule table the first line that holds
decides. In a list of preconditions every violated line is reported: `refuse` stands against the operation,
`data loss` does unless the operator accepts the loss, `warn` is only said. Facts older than
{FACTS_LIMIT_S:.0f} seconds are refused; nothing is decided on them.
"""

_RULES: tuple[tuple[str, str, Sequence[Rule[Any, Any]]], ...] = (
    (
        "Does the watcher call for a failover?",
        "By the lines of the beacons on the nodes. `patience` is `failover.call_after_s`. CALL starts the deployment "
        "`failover`, which looks for itself; everything else starts nothing.",
        WATCH_RULES,
    ),
    (
        "Does this call for a failover begin?",
        "The compare-and-set on the expected primary: a second or late alert changes nothing.",
        ADMISSION_RULES,
    ),
    (
        "What has become of the primary?",
        "Over SSH by any path first, then the standby's word, then the witnesses. Rounds that differ are "
        "AMBIGUOUS; one healthy round is HEALTHY. What is concluded from silence (GONE, HUNG, UNRESPONSIVE) needs "
        f"{SILENCE_LOOKS} rounds that say the same, the second begun at the earliest {SILENCE_APART_S:.0f} s after "
        "the first: a lost packet is sent again after a second, and what swallows the packets of one moment is not "
        "taken for a machine that is gone. A round need not wait for the end of the one before.",
        PRIMARY_RULES,
    ),
    (
        "A server that does not answer: is it waited for?",
        "With `restart_first`, before anything is fenced.",
        RESTART_RULES,
    ),
    (
        "How is it fenced?",
        "SSH, COMMAND, DRAIN and WAIT are done and then looked at again; STOPPED, COMMANDED, SELF_FENCE, "
        "WITNESSES and ATTESTED are enough to promote.",
        FENCE_RULES,
    ),
    (
        "After the fence: who has more?",
        "With the exact end of a primary that was shut down cleanly.",
        AFTER_FENCE_RULES,
    ),
    (
        "The last look before the promotion",
        "With facts taken after the fence, not older than 8 seconds.",
        LAST_LOOK_RULES,
    ),
    (
        "How does a node become a standby again?",
        "",
        REJOIN_RULES,
    ),
    (
        "The next step of synchronous replication",
        "One change at a time; what a failover may claim about loss rests on what is recorded, so the record "
        "comes before the change.",
        SYNC_RULES,
    ),
    (
        "Where does a killed operation go on?",
        "",
        RESUME_RULES,
    ),
)

_CHECKS: tuple[tuple[str, Sequence[Check[Any]]], ...] = (
    ("May the standby take over without its primary's help?", CANDIDATE_CHECKS),
    ("May the roles be exchanged as planned?", SWITCH_CHECKS),
    ("Does bootstrap go on from the Harbor that a node has already?", ADOPTION_CHECKS),
    ("Can `adopt` take over the Harbor that a node has?", TAKE_OVER_CHECKS),
)


def rules_page() -> str:
    """Render all tables as Markdown."""
    sections = [_INTRODUCTION]
    sections += [_rule_section(title, text, rules) for title, text, rules in _RULES]
    sections += [_check_section(title, checks) for title, checks in _CHECKS]
    sections.append(_finding_section(FINDINGS))
    return "\n".join(sections)


def _rule_section(title: str, text: str, rules: Iterable[Rule[Any, Any]]) -> str:
    rows = [(rule.name, rule.condition, f"**{rule.kind}**", rule.reason, rule.remedy) for rule in rules]
    lead = f"{text}\n\n" if text else ""
    return f"## {title}\n\n{lead}" + _table(("Rule", "When", "Decision", "Reason", "What to do"), rows)


def _check_section(title: str, checks: Iterable[Check[Any]]) -> str:
    rows = [(c.name, c.condition, f"**{c.weight}**", c.reason, c.remedy) for c in checks]
    return f"## {title}\n\n" + _table(("Check", "Violated when", "Weight", "Reason", "What to do"), rows)


def _finding_section(findings: Iterable[Finding]) -> str:
    rows = [(f.name, f.condition, f"**{f.verdict}**", f.reason, f.remedy) for f in findings]
    lead = "The worst finding names the site; all of them are reported. Without any it is **HEALTHY**.\n\n"
    return (
        "## How is the site?\n\n"
        + lead
        + _table(("Finding", "When", "Verdict", "Reason", "What to do"), rows)
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    print(rules_page(), end="")
