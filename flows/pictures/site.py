"""A site as a picture: the load balancer above its nodes, whom it serves, who follows whom and how far behind."""

from collections.abc import Sequence

from flows.pictures import svg

BOX, GAP, HEIGHT, TOP = 230, 130, 112, 118
_LEFT, _BALANCER = 24, 150

# A row of flows.rules.topology: node, role, state, timeline, lag, Harbor, load balancer, guard.
Row = tuple[str, ...]


def site_picture(title: str, rows: Sequence[Row]) -> str:
    """Draw a site.

    Args:
        title: of the picture.
        rows: of its nodes, as `flows.rules.topology` gives them.
    """
    # The primary on the left: what it sends goes to the right.
    nodes = sorted(rows, key=lambda row: row[1] != "primary")
    width = 2 * _LEFT + max(2, len(nodes)) * (BOX + GAP) - GAP
    places = {row[0]: _LEFT + index * (BOX + GAP) for index, row in enumerate(nodes)}
    middle = width / 2
    parts = [svg.text(12, 24, title, "big", at_most=70)]
    parts.append(svg.rect(middle - _BALANCER / 2, 40, _BALANCER, 30, "box", round_=6))
    parts.append(svg.text(middle, 60, "load balancer", "strong", anchor="middle"))
    for row in nodes:
        parts += _way_of_clients(middle, places[row[0]] + BOX / 2, row)
    for row in nodes:
        parts += _node(places[row[0]], row)
    primaries = [row for row in nodes if row[1] == "primary"]
    if len(primaries) == 1:
        for row in nodes:
            if row[1] == "standby":
                parts += _replication(places[primaries[0][0]], places[row[0]], row)
    return svg.picture(width, TOP + HEIGHT + 34, title, parts)


def _way_of_clients(middle: float, x: float, row: Row) -> list[str]:
    served = row[6]
    if not served:
        return []
    parts = [
        svg.path([(middle, 70), (x, TOP)], "way" if served == "served" else "off", arrow=served == "served")
    ]
    if served != "served":
        parts.append(svg.text((middle + x) / 2 + 10, 100, served, "bad" if served == "not served" else "dim"))
    return parts


def _node(x: float, row: Row) -> list[str]:
    name, role, state, timeline, _, harbor, _, guard = row
    reached = state != "not reached"
    kind = "gone" if not reached else "first" if role == "primary" else "box"
    known = [part for part in (state, f"timeline {timeline}" if timeline else "") if part]
    lines = [svg.text(x + 12, TOP + 44, f"{role}", "strong" if role == "primary" else "", at_most=30)]
    lines.append(svg.text(x + 12, TOP + 62, ", ".join(known), "" if _sound(state) else "bad", at_most=34))
    if harbor:
        lines.append(
            svg.text(
                x + 12, TOP + 82, f"Harbor: {harbor}", "good" if harbor == "healthy" else "bad", at_most=32
            )
        )
    if guard:
        lines.append(svg.text(x + 12, TOP + 100, f"guard: {guard}", "dim" if guard == "runs" else "bad"))
    return [
        svg.rect(x, TOP, BOX, HEIGHT, kind, round_=8),
        svg.text(x + 12, TOP + 22, name, "big", at_most=26),
        *lines,
    ]


def _sound(state: str) -> bool:
    return state in ("", "running") or state.startswith("streaming")


def _replication(start: float, end: float, row: Row) -> list[str]:
    """Draw the way of the WAL; behind the boxes in between where the standby is not the next one."""
    streams, lag = row[2].startswith("streaming"), row[4]
    below = TOP + HEIGHT + 10
    near = end - start <= BOX + GAP
    points = (
        [(start + BOX, TOP + 56), (end, TOP + 56)]
        if near
        else [
            (start + BOX / 2, TOP + HEIGHT),
            (start + BOX / 2, below),
            (end + BOX / 2, below),
            (end + BOX / 2, TOP + HEIGHT),
        ]
    )
    x, y = ((start + BOX + end) / 2, TOP + 48.0) if near else (end + BOX / 2 - 8, below + 16)
    told = f"lag {lag}" if lag else "no lag known"
    return [
        svg.path(points, "way" if streams else "off", arrow=True),
        svg.text(x, y, told, "" if streams else "bad", anchor="middle" if near else "end"),
    ]
