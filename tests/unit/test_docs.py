"""The documentation tells the truth, as far as a program can see: links, files, commands, settings."""

import re
from pathlib import Path

import pytest

from blocks.site_file import inspect_site_file
from deployments.arguments import make_parser
from deployments.catalogue import CATALOGUE
from lab.services import haproxy_cfg
from lab.topology import FIRST_SUBNET, Topology

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
READMES = [ROOT / "README.md", ROOT / "README.zh.md"]
_FENCE = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    """Name a page in a test's name."""
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Return the anchors that a code forge makes of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    plain = [re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", title).strip().lower() for title in titles]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in plain}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading_that_exist(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (heading and heading not in anchors(file)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_of_the_repository_that_is_named_exists(page: Path) -> None:
    named = re.findall(
        r"`((?:flows|tasks|blocks|deployments|lab|tests|docs)/[\w./-]+)`", page.read_text(encoding="utf-8")
    )
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(
        re.findall(r"(?:`|^|\$ )make ([a-z-]+)(?=`|\s|$)", page.read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert named - targets == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_is_one_that_harbor_ha_takes(page: Path) -> None:
    """A flow is one of the catalogue, a parameter one of the flow, an option one of the command line."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    deployments = {entry.name: entry for entry in CATALOGUE}
    for line in re.findall(
        r"harbor-ha ((?:run|apply|serve|receive|setup|watch|sites|remove|status|backups)\b[^`\n]*)", text
    ):
        words = re.split(r"\s+#|\s*;|\s+and\b", line)[0].strip().split()
        if any(word in ("FLOW", "SITE.yml", "RECEIVER.yml") or word.endswith(":") for word in words[1:]):
            continue
        assert line.split()[0] in (
            "run",
            "apply",
            "serve",
            "receive",
            "setup",
            "watch",
            "sites",
            "remove",
            "status",
            "backups",
        )
        if words[0] != "run" or len(words) == 1:
            continue
        assert words[1] in deployments, line
        given = re.findall(r"--param (\w+)=", line)
        flow = deployments[words[1]].flow()
        assert set(given) <= set(flow.parameters.properties), line
        options = {word for word in words if word.startswith("--")}
        assert options <= {"--site", "--param", "--watch", "--timeout", "--without-prefect"}, line


def test_the_readmes_tell_of_every_flow() -> None:
    for page in READMES:
        rows = set(re.findall(r"^\| `([\w-]+)` \|", page.read_text(encoding="utf-8"), re.MULTILINE))
        assert rows == {entry.name for entry in CATALOGUE}


def test_both_readmes_have_the_same_commands_and_links() -> None:
    """A command that is put right in one of them must not stay wrong in the other."""
    english, chinese = (page.read_text(encoding="utf-8") for page in READMES)
    for pattern in (
        r"^(?:\$ )?((?:(?:make|harbor-ha|prefect|export) |scripts/)[^#\n]*?)\s*(?:#.*)?$",
        r"\]\((docs/[^)#]+)",
    ):
        # The Chinese one links to the Chinese page where there is one.
        texts = (english, chinese.replace("(docs/zh/", "(docs/"))
        wanted, found = (set(re.findall(pattern, text, re.MULTILINE)) for text in texts)
        assert found == wanted


def test_the_reference_haproxy_checks_what_the_lab_has_proven() -> None:
    page = (ROOT / "docs" / "load-balancer.md").read_text(encoding="utf-8")
    proven = haproxy_cfg(Topology("demo", FIRST_SUBNET, "mark")).replace("harbor.lab", "harbor.example.com")
    lines = [line.strip() for line in proven.splitlines()]
    wanted = [
        line for line in lines if line.startswith(("http-check", "option", "timeout", "balance", "mode"))
    ]
    assert [line for line in wanted if f"    {line}\n" not in page] == []
    checks = re.search(r"check check-ssl .*? on-marked-down shutdown-sessions", proven)
    assert checks is not None
    assert checks[0] in page


def test_no_page_names_a_path_or_a_host_of_a_developers_machine() -> None:
    for page in PAGES:
        assert re.findall(r"/root/\.|/home/[a-z]", page.read_text("utf-8")) == []


def test_the_command_lines_help_is_what_the_pages_say() -> None:
    """`--check`, `--site`, `--config` are options of the commands that the pages give them to."""
    parse = make_parser().parse_args
    assert parse(["apply", "site.yml", "--check"]).check
    assert parse(["serve", "--site", "main"]).site == ["main"]
    assert parse(["serve", "--no-watch", "--metrics-port", "9097"]).no_watch
    assert parse(["watch", "--site", "main", "--host", "0.0.0.0", "--port", "0"]).site == ["main"]
    assert parse(["receive", "--config", "receiver.yml"]).config == "receiver.yml"
    assert parse(["run", "check", "--site", "main", "--watch"]).watch
    page = (ROOT / "docs" / "operations.md").read_text("utf-8").replace("\\\n", " ")
    for line in re.findall(r"^harbor-ha (init .*)$", page, re.MULTILINE):
        assert parse(line.split()).directory == "/etc/harbor-ha/main"


def test_the_example_site_file_has_no_key_that_does_not_exist() -> None:
    """Its secrets and key files are the operator's, so it cannot be valid; its keys can be right."""
    from blocks import SiteFileInvalid

    with pytest.raises(SiteFileInvalid) as invalid:
        inspect_site_file(ROOT / "docs" / "site.example.yml")
    assert [str(problem) for problem in invalid.value.problems if "not a known key" in str(problem)] == []
