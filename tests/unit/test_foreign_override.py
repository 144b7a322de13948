"""docker-compose.override.yml as other people have it: kept, or refused in a sentence before anything is changed."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from blocks import HarborSite
from tasks.errors import Refused
from tasks.harbor.override import PINNED, merged, objections, pinned
from tests.unit.harbor_site import make_site

SECRETS = {name: "s" * length for name, length in PINNED.items()}


@pytest.fixture
def site(tmp_path: Path) -> HarborSite:
    return make_site(tmp_path)


def document(text: str, site: HarborSite) -> dict[str, Any]:
    result = merged(text, site, SECRETS, None)
    assert merged(result, site, SECRETS, None) == result
    loaded: dict[str, Any] = yaml.safe_load(result)
    return loaded


@pytest.mark.parametrize(
    "text",
    [
        "services:\n  registry:\n  core:\n",
        "services:\n",
        "services:\n  registry:\n    volumes:\n",
        "services:\n  core:\n    environment:\n",
        "networks:\n  harbor:\nservices: {}\n",
        "networks:\nversion: '2.3'\n",
    ],
)
def test_what_is_there_and_empty_is_filled(text: str, site: HarborSite) -> None:
    found = document(text, site)
    assert found["services"]["registry"]["volumes"][0]["target"] == "/storage"
    assert found["services"]["core"]["environment"]["CORE_SECRET"] == SECRETS["CORE_SECRET"]
    assert found["networks"]["harbor"]["ipam"]["config"] == [{"subnet": site.harbor.network}]


def test_a_variable_that_comes_from_the_shell_still_does(site: HarborSite) -> None:
    text = "services:\n  core:\n    environment:\n      - HTTP_PROXY\n      - NO_PROXY=a=b\n      - EMPTY=\n"
    environment = document(text, site)["services"]["core"]["environment"]
    assert environment["HTTP_PROXY"] is None
    assert (environment["NO_PROXY"], environment["EMPTY"]) == ("a=b", "")


def test_a_variable_without_a_value_is_no_pinned_secret() -> None:
    assert pinned("services: {core: {environment: [CORE_SECRET, CSRF_KEY=x]}}\n") == {"CSRF_KEY": "x"}


BAD = {
    "services:\n  core: yes\n": r"services\.core",
    "services: [core]\n": "services",
    "services:\n  core:\n    environment: A=b\n": r"services\.core\.environment",
    "services:\n  registry:\n    volumes: /a:/b\n": r"services\.registry\.volumes",
    "networks:\n  harbor:\n    external: true\n": r"networks\.harbor.*external",
    "networks:\n  harbor:\n    external:\n      name: company\n": r"networks\.harbor.*external",
    "networks:\n  harbor:\n    ipam:\n      config: 10.0.0.0/24\n": r"networks\.harbor\.ipam\.config",
}


@pytest.mark.parametrize(("text", "said"), BAD.items())
def test_what_would_be_lost_or_refused_by_compose_is_refused_in_a_sentence(
    text: str, said: str, site: HarborSite
) -> None:
    with pytest.raises(Refused, match=said):
        merged(text, site, SECRETS, None)
    assert objections(text, site)


def test_a_missing_override_and_a_good_one_have_no_objection(site: HarborSite) -> None:
    assert objections(None, site) == []
    assert objections("services: {core: {environment: {A: b}}}\n", site) == []
