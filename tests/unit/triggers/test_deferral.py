"""A trigger's calls into Airflow, and what is left of them if the trigger ends first."""

from __future__ import annotations

import asyncio
import logging
import threading
from types import SimpleNamespace

import pytest
from asgiref.sync import async_to_sync, sync_to_async

from modalflow.airflow_compat.task_sdk import deferral
from modalflow.airflow_compat.task_sdk.deferral import in_triggerers_thread, is_still_deferred


@pytest.mark.parametrize("by_timeout", [True, False])
def test_a_question_to_airflow_is_read_to_its_end(by_timeout: bool) -> None:
    """Airflow 3.1 reads answers in order: one that no one reads would end the triggerer with all of its triggers."""

    async def story() -> list[str]:
        asked, answered, read = asyncio.Event(), asyncio.Event(), list[str]()

        async def ask() -> None:
            asked.set()
            await answered.wait()
            read.append("answer")

        trigger = asyncio.ensure_future(in_triggerers_thread(async_to_sync(ask), "a state"))
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


def test_an_unanswered_question_holds_no_other_trigger(caplog: pytest.LogCaptureFixture) -> None:
    """Triggers of other providers share one thread of the process, which stays free; the log has the question."""
    never = threading.Event()
    asking: list[threading.Thread] = []

    def ask() -> None:
        asking.append(threading.current_thread())
        never.wait()

    async def story() -> str:
        with pytest.raises(TimeoutError, match=r"about connection 'x' for 0\.05 s"):
            await in_triggerers_thread(ask, "connection 'x'", 0.05)
        async with asyncio.timeout(30):
            other: str = await sync_to_async(lambda: "an answer for another trigger")()
        never.set()
        return other

    with caplog.at_level(logging.WARNING):
        assert asyncio.run(story()) == "an answer for another trigger"
    assert "Airflow has not answered the question about connection 'x' for 0.05 s." in caplog.text
    assert asking[0].daemon, "the end of the triggerer waits for no answer"
    asking[0].join(30)


def test_a_task_of_which_airflow_says_nothing_counts_as_deferred(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its call is not cancelled, because another triggerer may go on with it."""
    never = threading.Event()
    monkeypatch.setattr(deferral, "_SHORT_PATIENCE", 0.05)
    monkeypatch.setattr(deferral, "_states", lambda _: [str(never.wait())])

    async def story() -> bool:
        found = await is_still_deferred(SimpleNamespace(dag_id="d", task_id="t"))
        never.set()
        return found

    assert asyncio.run(story())
    assert "about the state of task d.t for 0.05 s" in caplog.text


def test_an_answer_and_an_error_arrive() -> None:
    """Of the function in its thread."""

    async def story() -> int:
        with pytest.raises(KeyError):
            await in_triggerers_thread({}.popitem, "nothing")
        return await in_triggerers_thread(lambda: 42, "a number")

    assert asyncio.run(story()) == 42
