"""The control plane's records of function calls: where each input ran.

Asks through the real SDK, so it works against Modal as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import modal

from modalflow.config.variables import set_variables

if TYPE_CHECKING:
    # SDKs before 1.5.2 have it in modal.call_graph.
    from modal.types import InputInfo


def containers_of(function_calls: Iterable[str], env: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """Return function call → the containers of its inputs; empty for an unknown call.

    ``env`` names the control plane and its tokens, as the SDK's environment variables.
    """
    found: dict[str, frozenset[str]] = {}
    # The SDK reads the address only from the process's variables.
    with set_variables(env):
        client = modal.Client.from_credentials(env["MODAL_TOKEN_ID"], env["MODAL_TOKEN_SECRET"])
    for function_call in set(function_calls):
        if not function_call.startswith("fc-"):
            continue
        try:
            graph = modal.FunctionCall.from_id(function_call, client=client).get_call_graph()
        except modal.exception.NotFoundError:
            continue
        nodes = list(_flat(graph))
        found[function_call] = frozenset(
            node.task_id for node in nodes if node.function_call_id == function_call and node.task_id
        )
    return found


def _flat(nodes: Iterable[InputInfo]) -> Iterator[InputInfo]:
    for node in nodes:
        yield node
        yield from _flat(node.children)
