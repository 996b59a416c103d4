"""Image.run_function: build a layer by running a function once in a container of the image.

Owns this one run: the call, the function's output, and its written files. Images.py decides about the resulting layer.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from modal_proto import api_pb2

from modalflow.emulator.calls.call_records import CallRecords
from modalflow.emulator.calls.function_call import FunctionCall
from modalflow.emulator.containers.pools import Pools
from modalflow.emulator.functions.function import Building
from modalflow.emulator.functions.functions import Functions
from modalflow.emulator.images.builder import Build, BuildFunctionError
from modalflow.emulator.images.layer_capture import prune
from modalflow.emulator.state.journal import Journal
from modalflow.emulator.state.state_dir import StateDir

#: The longest time between two checks whether the container, or the call, has ended.
CHECK_SECONDS = 60.0


class BuildingFunctions:
    """The runner of functions for building images."""

    def __init__(self, state: StateDir, functions: Functions, pools: Pools) -> None:
        self._state, self._functions, self._pools = state, functions, pools
        # A build interrupted by the end of the control plane is not resumed: its calls are not on disk.
        self._records = CallRecords(Journal())

    async def run(self, function_id: str, content: api_pb2.FunctionInput, build: Build, kept: Path) -> None:
        """Run the function; its written files are in ``kept`` afterwards. BuildFunctionError if it fails."""
        function = self._functions.get(function_id)
        if function.staged is None:
            raise BuildFunctionError("the function was not defined for this build")
        definition = api_pb2.Function()
        definition.CopyFrom(function.staged)
        # One container for one input: its files are complete when it ends.
        definition.max_inputs = 1
        definition.ClearField("retry_policy")
        function.building = building = Building(build, kept)
        function.definition, function.revision = definition, 1
        call = FunctionCall(
            function=function,
            kind=api_pb2.FUNCTION_CALL_TYPE_UNARY,
            invocation=api_pb2.FUNCTION_CALL_INVOCATION_TYPE_SYNC,
            observer=self._records,
        )
        item = call.put(api_pb2.FunctionPutInputsItem(idx=0, input=content))
        try:
            self._pools.submit(item)
            while not await call.changed.until(lambda: not call.unfinished, CHECK_SECONDS):
                pass
            result = call.outputs[0].result
            if result.status != api_pb2.GenericResult.GENERIC_STATUS_SUCCESS:
                raise BuildFunctionError(
                    f"the function {definition.function_name!r} failed: {result.exception}\n{result.traceback}".strip()
                )
            await building.ended.wait()
        except asyncio.CancelledError:
            self._pools.cancel([item], terminate_containers=True)
            raise
        finally:
            function.building = None
        if building.layer is not None:
            await asyncio.to_thread(prune, kept, building.layer, self._state.root)
