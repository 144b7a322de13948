"""A flow that does nothing, for tests of what is around flows."""

from prefect import flow
from prefect.artifacts import create_markdown_artifact


@flow(name="example")
def example(site: str, dry_run: bool = False) -> None:
    """Report which site was asked for.

    Args:
        site: name of the site.
        dry_run: change nothing, as always here.
    """
    create_markdown_artifact(f"# example of {site}, dry_run={dry_run}", key="example")
