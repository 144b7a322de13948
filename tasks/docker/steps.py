"""The container engine's steps as Prefect tasks."""

from tasks.again import PACKAGES
from tasks.docker import daemon, engine
from tasks.step import step

install = step(engine.install, "Install Docker", again=PACKAGES)
configure = step(daemon.configure, "Merge daemon.json")
