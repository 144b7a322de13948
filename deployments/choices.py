"""What the forms of Prefect's UI offer for site and node: the saved sites, kept current by `apply` and `remove`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import httpx

from blocks.store import saved_sites
from deployments.catalogue import CATALOGUE, TAG, DeploymentEntry

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

SITE = "site"
# What a destructive flow asks for once more: flows/machinery/typed.py.
CONFIRMATION = "confirm_site"


def with_choices(
    schema: Mapping[str, Any], node_parameter: str, sites: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Return the parameter schema of a flow with its sites and nodes as choices.

    A form cannot make one choice depend on another: the nodes are those of all sites.

    Args:
        schema: of the flow, or of the deployment with older choices.
        node_parameter: the parameter that names a node; "" when there is none.
        sites: each saved site with its nodes. Without any, whatever is typed is taken.
    """
    offered = {SITE: sorted(sites)}
    if node_parameter:
        offered[node_parameter] = sorted({node for nodes in sites.values() for node in nodes})
    properties = {name: dict(known) for name, known in (schema.get("properties") or {}).items()}
    for name in offered.keys() & properties.keys():
        properties[name].pop("enum", None)
        if offered[name]:
            properties[name]["enum"] = offered[name]
            # An empty text, "as the flow thinks best", is no choice: the form leaves it away instead.
            if properties[name].get("default") == "":
                del properties[name]["default"]
    return {**schema, "properties": properties}


def offer(deployments: "Sequence[RunnerDeployment]", sites: Mapping[str, Sequence[str]]) -> None:
    """Give deployments that are about to be registered their choices.

    Args:
        deployments: of the catalogue.
        sites: each site that is saved, or served here, with its nodes.
    """
    nodes = {entry.name: entry.node for entry in CATALOGUE}
    for made in deployments:
        schema = made._parameter_openapi_schema
        changed = with_choices(schema.model_dump(exclude_unset=True), nodes.get(made.name, ""), sites)
        made._parameter_openapi_schema = type(schema)(**changed)


def update_choices(api: httpx.Client, catalogue: Sequence[DeploymentEntry] = CATALOGUE) -> int:
    """Offer the saved sites and their nodes in every form that the server has, and return how many were changed.

    Raises:
        httpx.HTTPError: the server does not answer, or refuses.
    """
    sites = saved_sites()
    asked = {"deployments": {"tags": {"all_": [TAG]}}}
    found = api.post("deployments/filter", json=asked).raise_for_status().json()
    entries = {entry.name: entry for entry in catalogue}
    changed = 0
    for deployment in found:
        known = entries.get(deployment["name"])
        if known is None:
            continue
        schema = deployment["parameter_openapi_schema"] or {}
        wanted = with_choices(schema, known.node, sites)
        if wanted != schema:
            body = {"parameter_openapi_schema": wanted}
            api.patch(f"deployments/{deployment['id']}", json=body).raise_for_status()
            changed += 1
    return changed


def not_offered_yet(deployment: Mapping[str, Any], parameters: Mapping[str, Any]) -> bool:
    """Tell whether a site or a node is not among the choices of a deployment, as Prefect's API knows it.

    A call about a site that was saved a moment ago must not be refused for a form that is older: whether there is
    such a site, the flow finds out.
    """
    properties = (deployment.get("parameter_openapi_schema") or {}).get("properties") or {}
    names = {SITE, *(entry.node for entry in CATALOGUE if entry.name == deployment.get("name"))}
    return any(
        "enum" in properties.get(name, {}) and parameters[name] not in properties[name]["enum"]
        for name in names & parameters.keys()
    )
