"""The whole story on one machine: `make demo`.

Every flow is started through its deployment, as the UI, a schedule or an alert would start it.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from blocks import HarborSite
from blocks.site_file import inspect_site_file
from lab.orchestrator import Orchestrator
from lab.shell import LabError
from lab.site_lab import Lab
from lab.topology import HOSTNAME, NODES
from tasks.errors import HarborHaError
from tasks.harbor.api import HarborApi
from tasks.harbor.oci import Registry, prove
from tasks.harbor.proof import PROJECT
from tasks.harbor.web import through_balancer

# Another name, so that a demo stands beside the one of another clone of this repository.
NAME = os.environ.get("HARBOR_HA_LAB", "demo")
_UNTOUCHED_LIMIT_S = 180.0


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

    def __init__(self, name: str = NAME, releases: Mapping[str, str] | None = None, harbor: str = "") -> None:
        self.name = name
        self.lab = Lab(name, releases=releases, harbor=harbor)
        self.orchestrator = Orchestrator(name)
        self.stages: list[Stage] = []
        self.pushed: list[str] = []
        self.site_file: Path | None = None

    def run(self) -> None:
        """Tell the story from two bare hosts on."""
        self.build()
        self.change_roles()
        self.back_up()
        self.lose_and_restore()
        self._summary()

    def build(self) -> None:
        """Two bare hosts become a site."""
        self._stage("Lab: three bare hosts, Redis, load balancer, OSS", self._bring_up)
        self._stage("Prefect: server, flows served, site saved", self._serve)
        self._stage("bootstrap: two bare hosts become a site", lambda: self._flow("bootstrap"))
        self._stage("bootstrap again: nothing to do", self._bootstrap_again)
        self._stage("a client pushes and pulls", self._use)
        self._stage("check: the position by which a failover knows its cost", self._check)

    def change_roles(self) -> None:
        """The primary is lost, comes back, and takes its role again."""
        self._stage("node-a, the primary, loses its power, and nobody does anything", self._cut_power)
        self._stage("failover, which the watcher has started", self._await_failover)
        self._stage("a client pushes and pulls", self._use)
        self._stage("node-a has power again", self._restore_power)
        self._stage("rejoin: node-a follows node-b", lambda: self._flow("rejoin", node="node-a"))
        self._stage("a client pushes and pulls", self._use)
        self._stage("switchover: back to node-a, nothing lost", lambda: self._flow("switchover", to="node-a"))
        self._stage("a client pushes and pulls", self._use)
        self._stage("check: all is well", self._check)

    def back_up(self) -> None:
        """Everything into the bucket."""
        self._stage(
            "nightly-backup: databases, configuration, images to OSS", lambda: self._flow("nightly-backup")
        )

    def lose_and_restore(self) -> None:
        """Everything is lost but the bucket."""
        self._stage("both machines and the NAS are lost", self._lose_everything)
        self._stage("disaster-restore: node-c from the bucket alone", self._restore)
        self._stage("a client pulls what was pushed before, and pushes", self._use)

    @property
    def site(self) -> HarborSite:
        """The site as its file describes it; `apply` has told what it thinks of that."""
        return inspect_site_file(self.site_file or self.lab.site_file)[0]

    def _stage(self, title: str, work: Callable[[], str]) -> None:
        print(f"\n=== {title}", flush=True)
        started = time.monotonic()
        result = work()
        self.stages.append(Stage(title, time.monotonic() - started, result))

    def _bring_up(self) -> str:
        topology = self.lab.up()
        if any(self._used(node) for node in NODES):
            # What an earlier demo left: machines without power, an empty NAS, a site on node-c.
            self.lab.recreate(*NODES)
            self.lab.empty_shared()
            self.lab.stop("lb")
            self.lab.start("lb")
        return f"up on {topology.subnet}"

    def _used(self, node: str) -> bool:
        return self.lab.exec(node, ["test", "-e", "/var/lib/harbor-ha"], check=False).returncode == 0

    def _serve(self) -> str:
        self.orchestrator.up(self.site_file or self.lab.site_file, self.name, watch=True)
        return f"UI at {self.orchestrator.url}"

    def _flow(self, name: str, **parameters: object) -> str:
        options = [word for key, value in parameters.items() for word in ("--param", f"{key}={value}")]
        self.orchestrator.command("run", name, "--site", self.name, "--watch", *options)
        return self.orchestrator.headline(name, self.name)

    def _bootstrap_again(self) -> str:
        said = self._flow("bootstrap")
        if "nothing was changed" not in said:
            raise LabError(f"A second bootstrap had something to do: {said}", where="orchestrator")
        return said

    def _check(self) -> str:
        """Run check; one that the schedule began in the same second cancels this one."""
        for _ in range(10):
            if self.orchestrator.command("run", "check", "--site", self.name, "--watch", check=False) == 0:
                return self.orchestrator.headline("check", self.name)
        raise LabError("No check came to its end in ten attempts.", where="orchestrator")

    def _use(self) -> str:
        """Push an image through the load balancer; pull it back, and all that were pushed before."""
        balancer = through_balancer(self.site)
        content = f"pushed at {time.time():.3f}".encode()
        repository = f"{PROJECT}/demo"
        with HarborApi(balancer) as api:
            api.ensure_project(PROJECT)
        proof = prove(balancer, {"load balancer": balancer}, repository, content)
        self.pushed.append(proof.digest)
        with Registry(balancer) as registry:
            for digest in self.pushed:
                registry.pull(repository, digest)
        result = f"pushed in {proof.push_s:.2f} s; {len(self.pushed)} images pulled"
        print(result, flush=True)
        return result

    def _cut_power(self) -> str:
        """Stop the primary's machine, and push until a push gets through."""
        self.lab.stop("node-a")
        cut = time.monotonic()
        print("a power cut, not a shutdown; a client pushes until it gets through", flush=True)
        while True:
            try:
                self._use()
            except HarborHaError as error:
                if time.monotonic() > cut + _UNTOUCHED_LIMIT_S:
                    raise LabError("No push gets through.", where="load balancer") from error
                time.sleep(0.3)
            else:
                return f"a push got through {time.monotonic() - cut:.1f} s after the power cut"

    def _await_failover(self) -> str:
        said = self.orchestrator.await_run("failover", _UNTOUCHED_LIMIT_S)
        print(said, flush=True)
        return said

    def _lose_everything(self) -> str:
        self.lab.stop("node-a")
        self.lab.stop("node-b")
        self.lab.exec("node-c", ["find", "/mnt/nas", "-mindepth", "1", "-delete"])
        return "no power, no images; the bucket is all there is"

    def _restore(self) -> str:
        """Apply the site file that has node-c alone, and restore on it."""
        self._apply_disaster()
        return self._flow("disaster-restore", **self._disaster())

    def _apply_disaster(self) -> None:
        self.site_file = self.lab.topology.directory / "site-disaster.yml"
        self.orchestrator.command("apply", str(self.site_file))

    def _disaster(self) -> dict[str, object]:
        identity = self.lab.topology.secrets / "age-identity"
        return {"target": "node-c", "images": "oss", "identity_file": identity}

    def _restore_power(self) -> str:
        self.lab.start("node-a")
        return "up; its boot guard keeps PostgreSQL from starting as a primary"

    def _summary(self) -> None:
        width = max(len(stage.title) for stage in self.stages)
        print(f"\n{'what was done':{width}}  seconds  result")
        for stage in self.stages:
            print(f"{stage.title:{width}}  {stage.seconds:7.1f}  {stage.result}")
        site = self.site
        print(f"\nPrefect UI  {self.orchestrator.url}")
        print(
            f"Harbor      https://{site.balancer.address}/ (certificate for {HOSTNAME}, CA in .lab/{self.name}/ca.pem)"
        )
        print(f"            user admin, password {site.harbor.admin_password.get_secret_value()}")
        print(f"\nLook at {self.orchestrator.url}:")
        print(
            "  Runs: `failover of demo from node-a`, which the watcher started; its report is under Artifacts"
        )
        print("  Artifacts: a report of each flow, and the catalogue of backups")
        print("  Deployments: what you would press at three in the morning, with a form for each")
        print("\n`make clean` takes it all away again.")


def clean(name: str = NAME) -> None:
    """Stop the demo's processes and remove its lab."""
    Orchestrator(name).down()
    Lab(name).down()


if __name__ == "__main__":
    if sys.argv[1:] == ["clean"]:
        clean()
    else:
        Demo().run()
