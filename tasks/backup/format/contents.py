"""What an archive of pg_dump holds: its table of contents, with what depends on what, and the SQL of each entry.

`pg_restore -l -v` gives the structure, one line an entry, with line ends in names taken out; `pg_restore -f -` gives
the statements. The text is foreign: whatever it says, nothing but an entry comes of it.
"""

import re
from dataclasses import dataclass


def listed(text: str) -> list[str]:
    """The names in a text, which commas part."""
    return [" ".join(name.split()) for name in text.split(",")]


# The longest first, so that TABLE DATA is not taken for a TABLE.
_KINDS = sorted(
    listed("""
ACCESS METHOD, ACL, AGGREGATE, BLOB, BLOB COMMENTS, BLOB METADATA, BLOBS, CAST, CHECK CONSTRAINT,
COLLATION, COMMENT, CONSTRAINT, CONVERSION, DATABASE, DATABASE PROPERTIES, DEFAULT, DEFAULT ACL, DOMAIN,
ENCODING, EVENT TRIGGER, EXTENSION, FK CONSTRAINT, FOREIGN DATA WRAPPER, FOREIGN TABLE, FUNCTION, INDEX,
INDEX ATTACH, LARGE OBJECTS, MATERIALIZED VIEW, MATERIALIZED VIEW DATA, OPERATOR, OPERATOR CLASS,
OPERATOR FAMILY, POLICY, PROCEDURAL LANGUAGE, PROCEDURE, PUBLICATION, PUBLICATION TABLE, PUBLICATION
TABLES IN SCHEMA, ROW SECURITY, RULE, SCHEMA, SEARCHPATH, SECURITY LABEL, SEQUENCE, SEQUENCE OWNED BY,
SEQUENCE SET, SERVER, SHELL TYPE, STATISTICS, STATISTICS DATA, STDSTRINGS, SUBSCRIPTION, SUBSCRIPTION
TABLE, TABLE, TABLE ATTACH, TABLE DATA, TEXT SEARCH CONFIGURATION, TEXT SEARCH DICTIONARY, TEXT SEARCH
PARSER, TEXT SEARCH TEMPLATE, TRANSFORM, TRIGGER, TYPE, USER MAPPING, VIEW
"""),
    key=len,
    reverse=True,
)
_LINE = re.compile(r"(\d+); \d+ \d+ (.*)")
_DEPENDS = re.compile(r";\tdepends on:((?: \d+)+)")
_BEGIN = re.compile(r"^--\n-- TOC entry (\d+) \(class \d+ OID \d+\)\n", re.MULTILINE)
_NAME = re.compile(r"^-- Name: (.*); Type: (.*); Schema: (.*); Owner: (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """One thing in an archive.

    Attributes:
        number: by which pg_restore knows it.
        kind: such as TABLE or ACL; `?` where this software has never heard of it.
        title: schema, name and owner as pg_restore lists them.
        needs: numbers of the entries that must be there before.
        name: as in its comment, with its schema; empty for data.
        owner: as in its comment; empty for data.
        statement: its SQL; empty for data. It may hold a password: not for messages.
    """

    number: int
    kind: str
    title: str
    needs: frozenset[int] = frozenset()
    name: str = ""
    owner: str = ""
    statement: str = ""

    def __repr__(self) -> str:
        return f"Entry({self.number}, {self.kind} {self.title})"

    @property
    def says(self) -> str:
        """What it is, for a human: never its SQL."""
        return f"{self.kind.lower()} {self.name or self.title}"[:200]


def contents_of(listing: str, statements: str = "") -> list[Entry]:
    """Read a table of contents.

    Args:
        listing: what `pg_restore -l -v` printed.
        statements: what `pg_restore -f - -v -s -C` printed.
    """
    texts = _statements(statements)
    found: list[Entry] = []
    for line in listing.splitlines():
        if match := _LINE.fullmatch(line):
            found.append(_entry(int(match[1]), match[2], texts))
        elif found and (match := _DEPENDS.fullmatch(line)):
            last = found.pop()
            needs = frozenset(int(number) for number in match[1].split())
            found.append(
                Entry(last.number, last.kind, last.title, needs, last.name, last.owner, last.statement)
            )
    return found


def _entry(number: int, rest: str, texts: dict[int, tuple[str, str, str]]) -> Entry:
    kind = next((known for known in _KINDS if rest.startswith(known + " ")), "?")
    title = rest.removeprefix(kind).strip()
    name, owner, statement = texts.get(number, ("", "", ""))
    return Entry(number, kind, title, name=name, owner=owner, statement=statement)


def _statements(text: str) -> dict[int, tuple[str, str, str]]:
    """Name, owner and SQL by number; of two that claim a number, the first, which pg_restore itself wrote."""
    found: dict[int, tuple[str, str, str]] = {}
    parts = _BEGIN.split(text)
    for number, body in zip(parts[1::2], parts[2::2], strict=True):
        header = _NAME.search(body)
        if header is None:
            continue
        schema = "" if header[3] == "-" else f"{header[3]}."
        found.setdefault(int(number), (schema + header[1], header[4], body[header.end() :]))
    return found
