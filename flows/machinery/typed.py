"""The site's name, typed once more: for what cannot be undone and begins with a click on one site among many."""

from prefect.context import FlowRunContext

from tasks.errors import Refused


def require_typed(site: str, typed: str, why: str) -> None:
    """Refuse a run of a deployment in which the site was only chosen.

    A call that is no run of a deployment, from a program or a shell, names the site itself.

    Args:
        site: the chosen one.
        typed: what stands in `confirm_site`.
        why: what makes it worth asking, one sentence.

    Raises:
        Refused: they differ.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    if run is None or run.deployment_id is None or typed.strip() == site:
        return
    raise Refused(
        f"It is not confirmed that {site} is meant. {why}",
        [
            f"confirm_site is {typed!r}: type {site} there."
            if typed
            else f"confirm_site is empty: type {site} there."
        ],
    )
