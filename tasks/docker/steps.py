"""The container engine's steps as Prefect tasks."""

from tasks.docker import daemon, engine
from tasks.step import step

install = step(engine.install, "Install Docker")
configure = step(daemon.configure, "Merge daemon.json")
