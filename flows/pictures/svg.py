"""The few shapes that the pictures of reports are made of, as SVG text, and their place in Markdown.

A picture is an image in the report: it cannot know which theme Prefect's page has. So it has a ground of its own, light
or dark as the browser prefers, on which everything is readable whatever is around it.
"""

import base64
import re
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

_STYLE = """
text{font:12px system-ui,'DejaVu Sans',sans-serif;fill:#1f2937}
.ground{fill:#f8fafc;stroke:#cbd5e1}.dim{fill:#55606f}.strong{font-weight:600}.big{font-size:14px;font-weight:600}
.axis,.way{stroke:#94a3b8;fill:none}.axis{stroke-opacity:.4}.off{stroke:#94a3b8;fill:none;stroke-dasharray:4 4}
.changed{fill:#2563eb}.unchanged{fill:#8b98a9}.failed{fill:#dc2626}.idle{fill:#f59e0b;fill-opacity:.25}
.good{fill:#15803d}.bad{fill:#b91c1c}.box{fill:#fff;stroke:#64748b}.first{fill:#dbeafe;stroke:#2563eb;stroke-width:2}
.gone{fill:none;stroke:#b91c1c;stroke-dasharray:4 4}
@media(prefers-color-scheme:dark){
text{fill:#e5e7eb}.ground{fill:#111827;stroke:#374151}.dim{fill:#a3aebd}.changed{fill:#3b82f6}
.axis,.way,.off{stroke:#64748b}.good{fill:#4ade80}.bad{fill:#f87171}.failed{fill:#ef4444}
.box{fill:#1f2937;stroke:#94a3b8}.first{fill:#1e3a5f;stroke:#60a5fa}.gone{stroke:#f87171}}
"""
# What XML 1.0 does not allow, and what would be half a character.
_FORBIDDEN = re.compile("[^\\x09\\x0a\\x0d\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")


def clean(text: str, at_most: int = 80) -> str:
    """Return foreign text as content for XML: escaped, on one line, without what XML forbids, and not too long."""
    line = " ".join(_FORBIDDEN.sub("�", text).split())
    return escape(line if len(line) <= at_most else line[: at_most - 1].rstrip() + "…")


def text(
    x: float, y: float, content: str, kind: str = "", *, anchor: str = "start", at_most: int = 80
) -> str:
    """Draw a line of text; `kind` is a class of the style above, `anchor` what `x` is of it."""
    return f'<text x="{x:.1f}" y="{y:.1f}"{_class(kind)}{_anchor(anchor)}>{clean(content, at_most)}</text>'


def rect(
    x: float, y: float, width: float, height: float, kind: str, *, tip: str = "", round_: int = 2
) -> str:
    """Draw a box; `tip` is read out by a screen reader, and shown where the picture is opened by itself."""
    shape = (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{round_}"{_class(kind)}'
    )
    return f"{shape}><title>{clean(tip, 200)}</title></rect>" if tip else f"{shape}/>"


def path(points: Sequence[tuple[float, float]], kind: str, *, arrow: bool = False) -> str:
    """Draw a line through points, with an arrow at its end if asked for."""
    way = " ".join(f"{'L' if index else 'M'}{x:.1f} {y:.1f}" for index, (x, y) in enumerate(points))
    end = ' marker-end="url(#arrow)"' if arrow else ""
    return f'<path d="{way}"{_class(kind)}{end}/>'


def picture(width: int, height: int, title: str, parts: list[str]) -> str:
    """Put shapes together to a whole SVG with a ground."""
    arrow = (
        '<marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0L8 4L0 8z" class="unchanged"/></marker>'
    )
    return "".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="img">',
            f"<title>{clean(title, 200)}</title><style>{_STYLE.replace(chr(10), '')}</style><defs>{arrow}</defs>",
            rect(0.5, 0.5, width - 1, height - 1, "ground", round_=6),
            *parts,
            "</svg>",
        ]
    )


def in_markdown(svg: str, title: str) -> str:
    """Return a line of Markdown that shows a picture without a file: a data address."""
    alternative = re.sub(r"[\[\]\\`<>]", " ", clean(title, 200))
    return f"![{alternative}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def _class(kind: str) -> str:
    return f" class={quoteattr(kind)}" if kind else ""


def _anchor(anchor: str) -> str:
    return f' text-anchor="{anchor}"' if anchor != "start" else ""
