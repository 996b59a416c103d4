"""The trigger that waits for the end of a function call on Modal.

Cheap to import, for DAG processors: functions import Modal's SDK at their use.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from modalflow.airflow_compat.task_sdk.deferral import is_still_deferred, notifies_of_kill
from modalflow.errors import CredentialsError
from modalflow.support.described import describe, words_of

if TYPE_CHECKING:
    from modalflow.triggers.pollers import Connection

#: Seconds for the cancellation of a call. Airflow gives a trigger 30 s for its ``on_kill``.
_PATIENCE = 25.0


class ModalFunctionCallTrigger(BaseTrigger):
    """Fires when a function call on Modal has ended. The task then reads the outcome itself.

    So a triggerer passes no result on, and its state is the id of the call. ``spawned_at`` is in seconds since the
    epoch. With ``cancel_on_kill``, a user's action on the waiting task ends the call. ``returned`` is plain data of the
    task, which comes back in the event: ``dag.test()`` drops the arguments of a deferral.
    """

    def __init__(
        self,
        function_call_id: str,
        modal_conn_id: str | None = None,
        spawned_at: float = 0.0,
        cancel_on_kill: bool = True,
        returned: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.function_call_id = function_call_id
        self.modal_conn_id = modal_conn_id
        self.spawned_at = spawned_at
        self.cancel_on_kill = cancel_on_kill
        self.returned = dict(returned or {})
        self._has_fired = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the public path of this class, and its arguments; no credentials."""
        return (
            "modalflow.triggers.ModalFunctionCallTrigger",
            {
                "function_call_id": self.function_call_id,
                "modal_conn_id": self.modal_conn_id,
                "spawned_at": self.spawned_at,
                "cancel_on_kill": self.cancel_on_kill,
                "returned": self.returned,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event when the call has ended, or when Modal has refused the credentials for long."""
        event = {"function_call_id": self.function_call_id, "problem": "", "returned": self.returned}
        try:
            await self._connection().poller.wait(self.function_call_id, self.spawned_at)
        except CredentialsError as error:
            event["problem"] = words_of(error)
        self._has_fired = True
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """End the call: a user has acted on the waiting task. Airflow calls this from 3.3 on."""
        if self.cancel_on_kill:
            await self._end_call()

    async def cleanup(self) -> None:
        """End the call if a user has acted on the waiting task, on versions of Airflow without ``on_kill``.

        These call it also when the triggerer stops. Then the task is still deferred.
        """
        if self._has_fired or not self.cancel_on_kill or notifies_of_kill(type(self)) or self.task_instance is None:
            return
        if not await is_still_deferred(self.task_instance):
            await self._end_call()

    def _connection(self) -> Connection:
        from modalflow.triggers.pollers import connection

        return connection(self.modal_conn_id)

    async def _end_call(self) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                await (await self._connection().calls()).end(self.function_call_id)
        except Exception as error:  # noqa: BLE001  Airflow drops what a trigger raises here.
            self.log.warning("Function call %s was not cancelled: %s", self.function_call_id, describe(error))
        else:
            self.log.info("Function call %s was cancelled, because its task no longer waits.", self.function_call_id)
