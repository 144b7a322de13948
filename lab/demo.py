"""The whole story on one machine: `make demo`.

Every flow is started through its deployment, as the UI, a schedule or an alert would start it.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from blocks import HarborSite, read_site_file
from lab.orchestrator import Orchestrator
from lab.site_lab import Lab
from lab.topology import HOSTNAME
from tasks.harbor.proof import push_and_pull

NAME = "demo"


@dataclass(frozen=True)
class Stage:
    """One chapter of the demo.

    Attributes:
        title: what happens.
        seconds: how long it took.
        result: what was seen at its end.
    """

    title: str
    seconds: float
    result: str


class Demo:
    """A lab, its orchestrator, and what was done so far."""

    def __init__(self) -> None:
        self.lab = Lab(NAME)
        self.orchestrator = Orchestrator(NAME)
        self.stages: list[Stage] = []

    def run(self) -> None:
        """Tell the story from two bare hosts on."""
        self._stage("Lab: three bare hosts, Redis, load balancer, OSS", self._bring_up)
        self._stage("Prefect: server, flows served, site saved", self._serve)
        self._stage("bootstrap: two bare hosts become a site", lambda: self._flow("bootstrap"))
        self._stage("bootstrap again: nothing to do", lambda: self._flow("bootstrap"))
        self._stage("A client pushes and pulls", self._use)
        self._summary()

    @property
    def site(self) -> HarborSite:
        """The site as its file describes it."""
        return read_site_file(self.lab.site_file)

    def _stage(self, title: str, work: Callable[[], str]) -> None:
        print(f"\n=== {title}", flush=True)
        started = time.monotonic()
        result = work()
        self.stages.append(Stage(title, time.monotonic() - started, result))

    def _bring_up(self) -> str:
        topology = self.lab.up()
        return f"up on {topology.subnet}"

    def _serve(self) -> str:
        self.orchestrator.up(self.lab.site_file, NAME)
        return f"UI at {self.orchestrator.url}"

    def _flow(self, name: str, **parameters: object) -> str:
        options = [word for key, value in parameters.items() for word in ("--param", f"{key}={value}")]
        self.orchestrator.command("run", name, "--site", NAME, "--watch", *options)
        return self.orchestrator.headline(name, NAME)

    def _use(self) -> str:
        return push_and_pull(self.site, name=f"demo at {time.time():.0f}").detail

    def _summary(self) -> None:
        width = max(len(stage.title) for stage in self.stages)
        print(f"\n{'what was done':{width}}  seconds  result")
        for stage in self.stages:
            print(f"{stage.title:{width}}  {stage.seconds:7.1f}  {stage.result}")
        site = self.site
        print(f"\nPrefect UI  {self.orchestrator.url}")
        print(
            f"Harbor      https://{site.balancer.address}/ (certificate for {HOSTNAME}, CA in .lab/{NAME}/ca.pem)"
        )
        print(f"            user admin, password {site.harbor.admin_password.get_secret_value()}")
        print("\n`make clean` takes it all away again.")


def clean() -> None:
    """Stop the demo's processes and remove its lab."""
    Orchestrator(NAME).down()
    Lab(NAME).down()


if __name__ == "__main__":
    if sys.argv[1:] == ["clean"]:
        clean()
    else:
        Demo().run()
