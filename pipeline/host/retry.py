"""Run the part of the running graph before a node again, with other seeds."""

from __future__ import annotations

from typing import Any

from comfy_execution.graph_utils import GraphBuilder

from ..graph.nodes import Graph
from ..graph.retry import with_next_seed


def run_again(dynprompt: Any, node_id: str, changes: dict[str, Any], *, may_buy: bool) -> tuple[Graph, str, list[int]]:
    """Return the nodes to run next, in the form that ComfyUI's `expand` takes, the id of this node's copy, the seeds.

    dynprompt: the node's hidden input. The copies show themselves where the nodes that they are copies of are. Raises
    RequestError as `with_next_seed` does.
    """
    graph = {name: dynprompt.get_node(name) for name in dynprompt.all_node_ids()}
    prefix = GraphBuilder.alloc_prefix()
    copy = with_next_seed(graph, node_id, lambda name: prefix + name, changes, may_buy=may_buy)
    for name, copied in copy.new_ids.items():
        copy.graph[copied]["override_display_id"] = dynprompt.get_display_node_id(name)
    return copy.graph, copy.new_ids[node_id], copy.seeds
