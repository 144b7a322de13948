"""Prefect's UI in a real browser: each form offers its choices, a flow is started by clicking, its picture is seen."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from blocks import HarborSite, save_site
from blocks.prefect_api import prefect_api
from blocks.site_file import read_site_file
from deployments.catalogue import CATALOGUE, TAG
from tests.unit.live_prefect import background, free_port, live_prefect
from tests.unit.site_on_disk import NOW, correct_site
from tests.unit.web_driver import BROWSER, DRIVER, Browser, browser

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(
        DRIVER is None or BROWSER is None,
        reason="Debian's packages chromium and chromium-driver are not installed; root can: python -m lab.packages",
    ),
]


@dataclass
class Ui:
    """What a person has in front of them, and the server behind it.

    Attributes:
        deployments: the id of each deployment by its name.
    """

    browser: Browser
    deployments: dict[str, str]

    def form(self, name: str) -> None:
        """Open the form of a deployment."""
        self.browser.go(f"/v2/deployments/deployment/{self.deployments[name]}/run")
        self.browser.find(f"//nav//*[normalize-space()='{name}']")
        self.browser.find("//button[@aria-label='Select site']")

    def offered(self, parameter: str) -> list[str]:
        """Open the choices of a parameter, read them, and close them again."""
        self.browser.click(f"//button[@aria-label='Select {parameter}']")
        self.browser.find("//*[@role='option']")
        read = "return [...document.querySelectorAll('[role=option]')].map(each => each.innerText)"
        choices = list(self.browser.run(read))
        self.browser.click(f"//button[@aria-label='Select {parameter}']")
        # It goes slowly, and would be taken for the next one's.
        until(lambda: not self.browser.run(f"{read}.length"))
        return choices

    def choose(self, parameter: str, choice: str) -> None:
        """Choose one of the choices of a parameter."""
        self.browser.click(f"//button[@aria-label='Select {parameter}']")
        self.browser.click(f"//*[@role='option'][normalize-space()='{choice}']")

    def submit(self) -> dict[str, Any]:
        """Start the run, wait until it has ended, and open its page; return it as the server knows it."""
        before = {run["id"] for run in runs_of_all()}
        self.browser.click("//button[normalize-space()='Submit']")
        run = until(
            lambda: next((run for run in runs_of_all() if run["id"] not in before and ended(run)), None)
        )
        # The log is sent some moments later, and the page of a run that has ended does not ask again.
        until(lambda: asked("logs/filter", logs={"flow_run_id": {"any_": [run["id"]]}}))
        self.browser.go(f"/v2/runs/flow-run/{run['id']}")
        self.browser.find(f"//nav//*[normalize-space()='{run['name']}']")
        return run


def asked(path: str, **body: Any) -> list[dict[str, Any]]:
    """What the server answers."""
    with prefect_api(timeout=30) as api:
        found: list[dict[str, Any]] = api.post(path, json=body).raise_for_status().json()
    return found


def runs_of_all() -> list[dict[str, Any]]:
    return asked("flow_runs/filter", sort="EXPECTED_START_TIME_DESC")


def ended(run: dict[str, Any]) -> bool:
    return run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def until(look: Callable[[], Any], limit: float = 60.0) -> Any:
    """Look again and again until there is something, and return it."""
    deadline = time.monotonic() + limit
    while not (found := look()):
        assert time.monotonic() < deadline, runs_of_all()
        time.sleep(0.2)
    return found


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    """A live server, the runner as it is shipped, a saved site whose nodes nobody reaches, and a browser."""
    place = tmp_path_factory.mktemp("ui")
    patch = pytest.MonkeyPatch()
    patch.setenv("HARBOR_HA_HOME", str(place / "home"))
    with live_prefect(place / "prefect") as address:
        save_site(silent(read_site_file(correct_site(place).write(), environ={}, now=NOW)))
        environment = {**os.environ, "PREFECT_API_URL": f"{address}/api", "PYTHONPATH": str(ROOT)}
        # Switched off for all tests; what a person reads of a run is its log.
        environment["PREFECT_LOGGING_TO_API_ENABLED"] = "true"
        serve = [sys.executable, "-m", "deployments.cli", "serve", "--no-watch"]
        with background(serve, environment, place / "runner.log"), browser(place) as window:
            window.open(address)
            yield Ui(window, registered())
    patch.undo()


def silent(site: HarborSite) -> HarborSite:
    """The site at addresses of this machine on which nobody listens: nothing of it is asked for over a network."""
    for node in site.nodes:
        node.address, node.port = "127.0.0.1", free_port()
    site.redis.host = site.balancer.address = "127.0.0.1"
    site.balancer = site.balancer.model_copy(update={"admin_host": "127.0.0.1", "admin_port": free_port()})
    site.redis.port = free_port()
    return site


def registered() -> dict[str, str]:
    """Wait until the runner has registered everything."""

    def all_of_them() -> dict[str, str]:
        found = asked("deployments/filter", deployments={"tags": {"all_": [TAG]}})
        return {item["name"]: item["id"] for item in found} if len(found) == len(CATALOGUE) else {}

    known: dict[str, str] = until(all_of_them, 90)
    return known


def test_each_form_opens_with_its_choices(ui: Ui) -> None:
    for known in CATALOGUE:
        ui.form(known.name)
        assert ui.offered("site") == ["example"], known.name
        if known.node:
            assert ui.offered(known.node) == ["node-a", "node-b"], known.name
        if known.name == "disaster-restore":
            assert ui.offered("images") == ["nas", "oss"]


def test_what_cannot_be_undone_and_was_only_clicked_is_refused_with_its_reason(ui: Ui) -> None:
    ui.form("prune")
    ui.choose("site", "example")
    ui.browser.click("//label[starts-with(., 'confirm (')]/following::button[@role='switch'][1]")
    run = ui.submit()
    assert (run["state_name"], run["state_type"]) == ("Refused", "FAILED")
    assert run["parameters"]["confirm"] is True
    assert run["name"] == "prune of example"
    ui.browser.find("//*[contains(., 'It is not confirmed that example is meant')]")


def test_a_run_that_was_started_by_clicking_shows_its_picture(ui: Ui) -> None:
    ui.form("check")
    ui.choose("site", "example")
    run = ui.submit()
    assert (run["state_name"], run["name"]) == ("Unknown", "check of example"), run["state"]["message"]
    ui.browser.click("//*[@role='tab'][normalize-space()='Artifacts']")
    ui.browser.click("//a[contains(@href, '/artifacts/key/check-example')]")
    ui.browser.click("//a[contains(@href, '/artifacts/artifact/')]")
    picture = "//img[starts-with(@src, 'data:image/svg+xml')]"
    ui.browser.find(picture)
    image = "document.querySelector('img[src^=\"data:image/svg\"]')"
    seen = f"const each = {image}; return [each.complete, each.naturalWidth]"
    complete, width = ui.browser.run(seen)
    assert complete
    assert width > 300
    fold = "//details[summary[normalize-space()='Steps']]"
    ui.browser.click(f"{fold}/summary")
    ui.browser.find(f"{fold}//table//td[contains(., 'Look at all nodes')]")
