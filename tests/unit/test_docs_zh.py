"""The Chinese pages say the same: the same commands, the same parts, the same rows, and links that lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted((DOCS / "zh").glob("*.md"))

_FENCED = re.compile(r"^( *)```[^\n]*\n.*?^\1```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"^ {4,}\S.*$", re.MULTILINE)
_HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def blocks(text: str) -> list[str]:
    """Every block of commands or output, and every indented line of one."""
    fenced = [found.group(0) for found in _FENCED.finditer(text)]
    return [*fenced, *_INDENTED.findall(_FENCED.sub("", text))]


def prose(text: str) -> str:
    """The page without its blocks, whose lines are no headings, rows or links."""
    return _FENCED.sub("", text)


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings make."""
    names = [name for _, name in _HEADING.findall(prose(page.read_text(encoding="utf-8")))]
    return {re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-") for name in names}


def english(page: Path) -> Path:
    """The page that a Chinese one is of."""
    return DOCS / page.name


def test_the_pages_for_the_night_are_there() -> None:
    assert {page.name for page in PAGES} >= {"failover.md", "operations.md", "restore.md", "runbook.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
class TestEveryPage:
    def test_its_commands_and_outputs_are_those_of_the_english_page(self, page: Path) -> None:
        theirs = blocks(english(page).read_text(encoding="utf-8"))
        assert blocks(page.read_text(encoding="utf-8")) == theirs

    def test_it_has_the_same_parts_and_rows(self, page: Path) -> None:
        ours, theirs = (prose(one.read_text(encoding="utf-8")) for one in (page, english(page)))
        assert [level for level, _ in _HEADING.findall(ours)] == [
            level for level, _ in _HEADING.findall(theirs)
        ]
        rows = [len(re.findall(r"^ *\|", text, re.MULTILINE)) for text in (ours, theirs)]
        assert rows[0] == rows[1]

    def test_its_links_lead_to_something(self, page: Path) -> None:
        for link in _LINK.findall(prose(page.read_text(encoding="utf-8"))):
            if re.match(r"https?:", link):
                continue
            path, _, anchor = link.partition("#")
            there = (page.parent / path).resolve() if path else page
            assert there.exists(), link
            if anchor:
                assert anchor in anchors(there), link

    def test_it_and_the_english_page_name_each_other(self, page: Path) -> None:
        assert f"(../{page.name})" in page.read_text(encoding="utf-8")
        assert f"(zh/{page.name})" in english(page).read_text(encoding="utf-8")
