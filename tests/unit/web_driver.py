"""A real browser, driven over chromedriver's own HTTP interface (W3C WebDriver)."""

import base64
import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.unit.live_prefect import free_port

DRIVER, BROWSER = shutil.which("chromedriver"), shutil.which("chromium")
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1400",
]


class Browser:
    """One window."""

    def __init__(self, session: httpx.Client) -> None:
        self._session = session

    def _do(self, method: str, path: str, **body: Any) -> Any:
        answer = self._session.request(method, path, json=body if method == "POST" else None)
        value = answer.json()["value"]
        assert answer.status_code == 200, value
        return value

    def open(self, address: str) -> None:
        """Go to a page."""
        self._do("POST", "url", url=address)

    def go(self, path: str) -> None:
        """Go to another page of the same application, as a click within it does: without loading it anew."""
        self.run(
            "history.pushState({}, '', arguments[0]); dispatchEvent(new PopStateEvent('popstate'))", path
        )

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page and return what it returns."""
        return self._do("POST", "execute/sync", script=script, args=list(arguments))

    def find(self, xpath: str, limit: float = 20.0) -> str:
        """Wait for an element that is there and can be seen, and return it."""
        deadline = time.monotonic() + limit
        while True:
            for found in self._do("POST", "elements", using="xpath", value=xpath):
                with contextlib.suppress(AssertionError):  # drawn anew meanwhile
                    if self._do("GET", f"element/{found[_ELEMENT]}/displayed"):
                        return str(found[_ELEMENT])
            assert time.monotonic() < deadline, f"{xpath} is not on the page: {self.text()[:2000]}"
            time.sleep(0.1)

    def click(self, xpath: str) -> None:
        """Click on an element as a mouse does."""
        element = self.find(xpath)
        self.run("arguments[0].scrollIntoView({block: 'center'})", {_ELEMENT: element})
        self._do("POST", f"element/{element}/click")

    def type(self, xpath: str, text: str) -> None:
        """Type into a field."""
        self._do("POST", f"element/{self.find(xpath)}/value", text=text)

    def text(self) -> str:
        """What can be read on the page."""
        return str(self.run("return document.body.innerText"))

    def screenshot(self, path: Path) -> None:
        """Keep what the window shows, as PNG."""
        path.write_bytes(base64.b64decode(self._do("GET", "screenshot")))


@contextlib.contextmanager
def browser(directory: Path) -> Iterator[Browser]:
    """Start a browser with nothing in its memory, and end it."""
    assert DRIVER is not None
    port = free_port()
    with (directory / "chromedriver.log").open("wb") as log:
        driver = subprocess.Popen([DRIVER, f"--port={port}"], stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/", timeout=60) as api:
            session = _begin(api, directory)
            api.base_url = httpx.URL(f"http://127.0.0.1:{port}/session/{session}/")
            try:
                yield Browser(api)
            finally:
                api.delete(f"http://127.0.0.1:{port}/session/{session}")
    finally:
        driver.terminate()
        driver.wait(20)


def _begin(api: httpx.Client, directory: Path) -> str:
    chrome = {"binary": BROWSER, "args": [*_OPTIONS, f"--user-data-dir={directory / 'profile'}"]}
    wanted = {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": chrome}}}
    deadline = time.monotonic() + 30
    while True:
        try:
            answer = api.post("session", json=wanted)
        except httpx.ConnectError:
            assert time.monotonic() < deadline, "chromedriver does not listen"
            time.sleep(0.1)
            continue
        assert answer.status_code == 200, answer.text
        return str(answer.json()["value"]["sessionId"])
