"""The entry point of a worker container: the body of every deployed Function.

A deployed Function refers to ``run`` by the name of this module, so neither name may change. Must stay cheap to import:
a container imports this file before its first input.
"""

from __future__ import annotations

import os
from typing import Any

import modal

from modalflow.worker import packing
from modalflow.worker.container import Container
from modalflow.worker.zygote import prestart

_container: Container | None = None

if not modal.is_local():
    # Before anything reads a variable.
    packing.unpack(os.environ)
    prestart.start()


async def run(submission: dict[str, Any]) -> dict[str, Any]:
    """Execute one submission and return its outcome as plain data."""
    # Imported by the first input: a process that only deploys does not need it.
    from modalflow.worker.call import Call

    global _container
    if _container is None:
        _container = Container.of_this_process()
    function_call_id = modal.current_function_call_id() or ""
    usage = _container.usage.begin_call(function_call_id)
    return await Call(_container, function_call_id, usage).perform(submission)
