"""What an automation of Prefect's does, without what the server adds to it: to see whether one is as it should be."""

from typing import Any


def plain(part: Any) -> dict[str, Any]:
    """Return a trigger or an action as plain data.

    Without ids, and with its sets in order: in JSON they have another one in each process.
    """
    data: dict[str, Any] = part.model_dump(mode="json")
    data.pop("id", None)
    for name in {"after", "expect", "for_each"} & data.keys():
        data[name] = sorted(data[name])
    return data


def definition(automation: Any) -> dict[str, Any]:
    """Return what an automation does, as plain data."""
    return {
        "description": automation.description,
        "enabled": automation.enabled,
        "trigger": plain(automation.trigger),
        "actions": [plain(action) for action in automation.actions],
    }
