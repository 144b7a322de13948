"""A flow that does nothing but look around, for tests of what is around flows."""

import os
import sys
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact


@flow(name="example")
def example(site: str, dry_run: bool = False) -> None:
    """Report which site was asked for.

    Args:
        site: name of the site.
        dry_run: change nothing, as always here.
    """
    command, parent = (
        Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        for pid in (os.getpid(), os.getppid())
    )
    create_markdown_artifact(
        f"# example of {site}, dry_run={dry_run}\n"
        f"command: {command}\nparent: {parent}\nhad failover: {'flows.failover' in sys.modules}\n",
        key="example",
    )
    get_run_logger().info("example of %s looked around", site)
