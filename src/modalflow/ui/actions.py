"""What a user can do: cancel work, hold profiles, and run the doctor. Each runs in threads of its own.

Each step on Modal has a time limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum

from modalflow.operations.cancelling import cancel
from modalflow.operations.doctor import findings
from modalflow.operations.doctor.doctor import examine
from modalflow.operations.inventory import Work
from modalflow.operations.profiles import pausing
from modalflow.operations.profiles.listing import ACTIVE
from modalflow.operations.site import Site
from modalflow.support.described import describe
from modalflow.ui.answers.actions import CancelAnswer, Cancelled, Finding, ProfileAnswer


class HoldAction(StrEnum):
    """What becomes of a profile."""

    PAUSE = "pause"
    DRAIN = "drain"
    RESUME = "resume"


#: Threads for the cancellations of one request, of which running work takes up to 30 s.
_AT_ONCE = 8

#: Seconds for the doctor's container.
_DOCTOR_SECONDS = 120.0

GONE = "is neither running nor waiting any more"


class Actions:
    """The actions of one API server. Airflow's own threads never wait for Modal."""

    def __init__(self, open_site: Callable[[], Site]) -> None:
        self._open_site = open_site
        self._doctor = threading.Lock()

    async def cancel(self, work_ids: Sequence[str], found: dict[str, Work], by: str) -> CancelAnswer:
        """Cancel work; ``found`` has what is there of the ids. Raises what ``open_site`` raises."""
        loop = asyncio.get_running_loop()
        threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="modalflow-ui-cancel")
        try:
            site = await loop.run_in_executor(threads, self._open_site)
            tasks = [
                loop.run_in_executor(threads, _cancelled, site, work_id, found.get(work_id), by)
                for work_id in dict.fromkeys(work_ids)
            ]
            return CancelAnswer(results=list(await asyncio.gather(*tasks)))
        finally:
            threads.shutdown(wait=False)

    async def hold(self, name: str, action: HoldAction, by: str, reason: str) -> ProfileAnswer:
        """Pause, drain or resume a profile. Raises UnknownProfileError, or as ``open_site`` and the SDK do."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="modalflow-ui-hold")
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, self._hold, name, action, by, reason)
        finally:
            thread.shutdown(wait=False)

    def _hold(self, name: str, action: HoldAction, by: str, reason: str) -> ProfileAnswer:
        site = self._open_site()
        if action is HoldAction.RESUME:
            change = pausing.resume(site, name)
        else:
            change = pausing.pause(site, name, by, reason, drain=action is HoldAction.DRAIN)
        hold = change.hold
        if hold is None:
            return ProfileAnswer(name=name, state=ACTIVE, changed=change.changed)
        return ProfileAnswer(
            name=name,
            state=hold.mode,
            state_by=hold.by,
            state_since=hold.since,
            state_reason=hold.reason,
            changed=change.changed,
        )

    def examination(self) -> AsyncIterator[str] | None:
        """Begin an examination and return its findings as lines of JSON; None while another one is under way.

        It runs to its end even if nobody reads it: its container is started by then.
        """
        if not self._doctor.acquire(blocking=False):
            return None
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        threading.Thread(target=self._examine, args=(loop, queue), name="modalflow-ui-doctor", daemon=True).start()
        return _lines_of(queue)

    def _examine(self, loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[str | None]) -> None:
        def put(line: str | None) -> None:
            # The loop is closed if the server has ended.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(queue.put_nowait, line)

        try:
            for line in _findings():
                put(line)
        finally:
            self._doctor.release()
            put(None)


async def _lines_of(queue: asyncio.Queue[str | None]) -> AsyncIterator[str]:
    while (line := await queue.get()) is not None:
        yield line


def _cancelled(site: Site, work_id: str, work: Work | None, by: str) -> Cancelled:
    if work is None:
        return Cancelled(work_id=work_id, done=True, how=GONE)
    try:
        ended = cancel(site, work, by)
    except Exception as error:  # noqa: BLE001  The user reads it, and the others are cancelled.
        return Cancelled(work_id=work_id, done=False, how=f"could not be cancelled: {describe(error)}")
    return Cancelled(work_id=work_id, done=ended.done, how=ended.how)


def _findings() -> Iterator[str]:
    try:
        for finding in examine(timeout=_DOCTOR_SECONDS):
            yield _line(finding)
    except Exception as error:  # noqa: BLE001  The user reads it as the last finding.
        yield _line(findings.fail("doctor", describe(error), "Run `modalflow doctor` on the scheduler's machine."))


def _line(finding: findings.Finding) -> str:
    shown = Finding(
        name=finding.name,
        status=finding.status.value,
        detail=finding.detail,
        advice=finding.advice,
        seconds=finding.seconds,
    )
    return json.dumps(shown.model_dump(), separators=(",", ":")) + "\n"
