"""A report that somebody can read at three in the morning: what was found, decided and done, and how long it took."""

from collections.abc import Callable
from typing import Any

from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from flows.machinery.around import hand_over, run_logger
from flows.machinery.ending import DRY_RUN
from flows.machinery.protocol import Protocol, StepRecord
from flows.pictures.svg import in_markdown
from flows.pictures.timeline import Bar, Kind, timeline
from tasks.outcome import PRIMARY_ACCEPTED

# Fewer steps are seen at a glance in their table.
_WORTH_A_PICTURE = 3


def render(
    run: Protocol, headline: str, sections: dict[str, list[str]] | None = None, picture: str = ""
) -> str:
    """Render the report as Markdown.

    Args:
        run: the steps.
        headline: the outcome in one sentence.
        sections: title and lines of what is to be read before the steps.
        picture: an SVG, shown below them; the table of the steps is folded then.
    """
    did, found = run.counts()
    lines = [f"# {run.name} of {run.site.name}", "", f"**{headline}**", ""]
    if run.dry_run:
        # Looks are taken in a dry run too.
        would = sum(record.outcome is None for record in run.records)
        steps = f" Steps that would be run: {would}." if would else ""
        lines += [f"Dry run: nothing was changed.{steps}", ""]
    else:
        lines += [f"{did} changed, {found} unchanged, {run.total():.1f} s in all.", ""]
    for title, texts in (sections or {}).items():
        lines += [f"## {title}", "", *(f"- {text}" for text in texts), ""]
    table = ["| at | took | step | on | result |", "|---:|---:|---|---|---|"]
    table += [row(*item) for item in _rows(run)]
    if picture:
        lines += [in_markdown(picture, headline), "", *folded("Steps", table)]
    else:
        lines += ["## Steps", "", *table]
    return "\n".join(lines) + "\n"


def folded(title: str, lines: list[str]) -> list[str]:
    """Put lines of Markdown under a fold, as Prefect's UI shows it."""
    # A blank line on both sides, or the table is not read as Markdown.
    return [f"<details><summary>{title}</summary>", "", *lines, "", "</details>"]


def drawn(run: Protocol) -> str:
    """Draw the steps of a run that took time; nothing for a dry run, and where there is little to see."""
    if run.dry_run or len(run.records) < _WORTH_A_PICTURE:
        return ""
    return timeline(f"{run.name} of {run.site.name}", [_bar(record) for record in run.records], run.total())


def _bar(record: StepRecord) -> Bar:
    kind: Kind = "failed" if record.outcome is None else "changed" if record.outcome.changed else "unchanged"
    return Bar(record.title, ", ".join(record.nodes), record.begin_s, record.seconds, kind)


def _rows(run: Protocol) -> list[tuple[str, str, str, str, str]]:
    rows = []
    for record in sorted(run.records, key=lambda record: record.begin_s):
        if record.outcome is not None:
            word = "**changed**" if record.outcome.changed else "unchanged"
            result = f"{word}: {record.outcome.detail}"
        else:
            result = f"**FAILED**: {record.error}" if record.error else "would run"
        took = "" if run.dry_run else f"{record.seconds:.1f} s"
        at = "" if run.dry_run else f"{record.begin_s:.1f} s"
        rows.append((at, took, record.title, ", ".join(record.nodes), result))
    return rows


def row(*cells: str) -> str:
    """Return a row of a table in Markdown."""
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def publish(
    run: Protocol,
    headline: str,
    sections: dict[str, list[str]] | None = None,
    *,
    state: str = "",
    picture: Callable[[], str] | None = None,
) -> dict[str, Any]:
    """Publish the report as an artifact and return the flow's result.

    The artifact is the last thing and may fail without harm: with the Prefect server gone, creating one blocks
    for a minute and raises, and the work is done all the same.

    Args:
        run: what was done.
        headline: how it ended, in one sentence.
        sections: further lines, by title.
        state: the name of the run's state, if it is neither Prefect's own nor that of a dry run; see `ends_named`.
        picture: draws an SVG; the steps as a timeline unless given.
    """
    text = render(run, headline, sections)
    did, found = run.counts()
    try:
        shown = render(run, headline, sections, picture() if picture else drawn(run))
        hand_over(f"{run.name.replace('_', '-')}-{run.site.name}".lower(), headline, shown)
    except Exception as error:
        run_logger().warning("The report could not be published (%s); here it is:\n%s", error, text)
    return {
        "state": state or (DRY_RUN if run.dry_run else "Completed"),
        "headline": headline,
        "changed": did,
        "unchanged": found,
        "seconds": round(run.total(), 2),
        "report": text,
    }


def say_accepted() -> None:
    """Say that a primary is accepted; without it, the alert starts a run more, which finds that out.

    Among the last things of a flow, and it may fail without harm.
    """
    run_id = flow_run.id
    if not run_id:
        return
    try:
        with get_client(sync_client=True) as api:
            api.update_flow_run_labels(run_id, {PRIMARY_ACCEPTED: "yes"})
    except Exception as error:
        run_logger().warning("Prefect did not take the label %s: %s", PRIMARY_ACCEPTED, error)
