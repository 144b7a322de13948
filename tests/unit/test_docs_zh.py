"""The Chinese pages say what the English ones say: the same commands, parts, rows, keys and numbers.

So whoever changes a command or a limit on an English page is told which Chinese page is left behind.
"""

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.unit.test_docs import anchors, prose

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted((DOCS / "zh").glob("*.md"))

_FENCED = re.compile(r"^( *)```[^\n]*\n.*?^\1```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"^ {4,}\S.*$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")
_NUMBER = re.compile(r"\d[\d.,]*\d|\d")


def blocks(page: Path) -> list[str]:
    """Every block of commands or output, in order, then every indented line of one."""
    text = page.read_text(encoding="utf-8")
    return [*(found[0] for found in _FENCED.finditer(text)), *_INDENTED.findall(prose(page))]


def levels(page: Path) -> list[str]:
    """The levels of the headings, in order."""
    return re.findall(r"^(#+) ", prose(page), re.MULTILINE)


def rows(page: Path) -> list[int]:
    """The number of cells of each row of the tables, in order."""
    lines = re.findall(r"^ *\|.*\|$", prose(page), re.MULTILINE)
    return [_CODE.sub("", line).count("|") - 1 for line in lines]


def named(page: Path) -> Counter[str]:
    """What stands in `code` within the text: keys, values, messages, short commands."""
    return Counter(_CODE.findall(prose(page)))


def numbers(page: Path) -> Counter[str]:
    """The numbers in the text that are digits: limits, times, steps. Those of links are their page's."""
    return Counter(_NUMBER.findall(_LINK.sub("]", prose(page))))


def english(page: Path) -> Path:
    """The page that a Chinese one is of."""
    return DOCS / page.name


def test_the_pages_for_the_night_are_there() -> None:
    assert {page.name for page in PAGES} >= {"failover.md", "operations.md", "restore.md", "runbook.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
class TestEveryPage:
    def test_its_commands_and_outputs_are_those_of_the_english_page(self, page: Path) -> None:
        assert blocks(page) == blocks(english(page))

    def test_it_has_the_same_parts_and_rows(self, page: Path) -> None:
        assert levels(page) == levels(english(page))
        assert rows(page) == rows(english(page))

    def test_it_names_the_same_keys_and_messages(self, page: Path) -> None:
        ours, theirs = named(page), named(english(page))
        assert set(ours) - set(theirs) == set()
        # More often is no fault: Chinese repeats a name where English says "it".
        assert theirs - ours == Counter()

    def test_it_gives_the_same_numbers(self, page: Path) -> None:
        ours, theirs = numbers(page), numbers(english(page))
        assert (ours - theirs, theirs - ours) == (Counter(), Counter())

    def test_its_links_lead_to_something(self, page: Path) -> None:
        broken = []
        for link in _LINK.findall(prose(page)):
            path, _, heading = link.partition("#")
            there = (page.parent / path).resolve() if path else page
            if not re.match(r"[a-z]+:", link) and (
                not there.exists() or (heading and heading not in anchors(there))
            ):
                broken.append(link)
        assert broken == []

    def test_it_leads_to_the_chinese_page_where_there_is_one(self, page: Path) -> None:
        detours = {f"../{other.name}" for other in PAGES}
        found = [link for link in _LINK.findall(prose(page)) if link.partition("#")[0] in detours]
        assert found == [f"../{page.name}"]  # its own English page, at its top

    def test_it_and_the_english_page_name_each_other_at_their_tops(self, page: Path) -> None:
        for one, link in ((page, f"[English](../{page.name})"), (english(page), f"[中文](zh/{page.name})")):
            assert one.read_text(encoding="utf-8").splitlines()[2] == link
