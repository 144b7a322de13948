"""Who could tell a machine that somebody switches on that it was replaced, or is about to be."""

from typing import TYPE_CHECKING

from tests.simulation.world.machines import Node
from tests.simulation.world.texts import SIM_JSON

if TYPE_CHECKING:
    from tests.simulation.world.site import World


def peer_warns(world: "World", node: Node) -> bool:
    """Tell whether a node is answered by one that knows of a promotion: a third one may know nothing."""
    timeline = node.data.branch.timeline if node.data else 0
    knows = [
        other.name
        for other in world.nodes.values()
        if other is not node and other.data is not None
        if other.data.branch.timeline > timeline or other.data_path + "/promote" in other.files
    ]
    return any(world.port(node.name, name) == "open" for name in knows)


def nas_warns(world: "World", node: Node) -> bool:
    """Tell whether a node finds on the NAS that another one was accepted on a newer timeline, or told to be."""
    texts = [text for path, text in world.nas_files.items() if path.endswith("/accepted.json")]
    timeline = node.data.branch.timeline if node.data else 0
    told = any(SIM_JSON.loads(text)["timeline"] > timeline for text in texts)
    # By what was asked, not by the file: without it the invariants would except what the file is there for.
    asked = [other for other in world.nodes.values() if other is not node and other.asked_with_nas]
    told = told or any(other.data_path + "/promote" in other.files for other in asked)
    told = told or any(other.data and other.data.branch.timeline > timeline for other in asked)
    return world.has_nas(node.name) and told
