"""A trigger's calls into Airflow, and what is left of them if the trigger ends first."""

from __future__ import annotations

import asyncio

import pytest
from asgiref.sync import async_to_sync

from modalflow.airflow_compat.task_sdk.deferral import in_triggerers_thread


@pytest.mark.parametrize("by_timeout", [True, False])
def test_a_question_to_airflow_is_read_to_its_end(by_timeout: bool) -> None:
    """Airflow 3.1 reads answers in order: one that no one reads would end the triggerer with all of its triggers."""

    async def story() -> list[str]:
        asked, answered, read = asyncio.Event(), asyncio.Event(), list[str]()

        async def ask() -> None:
            asked.set()
            await answered.wait()
            read.append("answer")

        trigger = asyncio.ensure_future(in_triggerers_thread(async_to_sync(ask)))
        await asked.wait()
        if by_timeout:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(trigger, 0)
        else:
            trigger.cancel()
            with pytest.raises(asyncio.CancelledError):
                await trigger
        answered.set()
        for _ in range(1000):
            if read:
                break
            await asyncio.sleep(0.01)
        return read

    assert asyncio.run(story()) == ["answer"]
