"""Why work waits: said in the task's log and in Airflow's event log, where a user looks who sees a task in `queued`.

Looks at what no container has begun, ever more rarely. What Airflow no longer waits for is ended, as nobody else tells.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from modalflow.control_plane import server_url
from modalflow.executor.lifecycle.airflow_state import Answer, Question, Standing
from modalflow.executor.lifecycle.call import Call, Phase
from modalflow.executor.lifecycle.tracker import Tracker
from modalflow.executor.mailbox import News, NewsKind
from modalflow.executor.modal_api.modal_api import FAILURES, Backlog
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.submission.resources import Resources
from modalflow.names import Names
from modalflow.protocol.messages import Kind
from modalflow.support.described import describe

log = logger(__name__)

#: The first word comes after this many sweep intervals of waiting, each further one after four times as long.
FIRST = 1.5
RARER = 4
#: Calls that are looked up, and asked Airflow about, in one round: those that have waited longest.
AT_ONCE = 200
ASKED_AT_ONCE = 1_000


class Waiting:
    """Tells why calls wait. ``look`` asks Modal and the ledger about a call, and acts on it."""

    def __init__(
        self,
        tracker: Tracker,
        say: Callable[[str, str, str], None],
        look: Callable[[Call], Awaitable[None]],
        interval: float,
    ) -> None:
        self._tracker = tracker
        self._say = say
        self._look = look
        self._first = FIRST * interval
        self._asked: set[str] = set()
        """Work ids about which Airflow's database has not answered yet."""

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self._first)
            try:
                await self.round()
            except Exception:
                log.exception("A check of waiting work failed; the next check continues")

    async def round(self) -> None:
        """Look once at what waits."""
        now = time.time()
        waiting = sorted(
            (call for call in self._tracker.calls if self._waits(call) and now - call.accepted_at >= self._first),
            key=lambda call: call.accepted_at,
        )
        self._ask_airflow(waiting[:ASKED_AT_ONCE])
        due = [call for call in waiting if now - call.accepted_at >= self._first * RARER**call.wait_reports][:AT_ONCE]
        await asyncio.gather(*(self._look(call) for call in due if call.function_call_id))
        backlogs: dict[tuple[str, Resources], Backlog | None] = {}
        told: dict[str, list[str]] = {}
        for call in due:
            if self._waits(call):
                text = self._tell(call, await self._backlog(call, backlogs))
                told.setdefault(self._place(call), []).append(f"{call.label}: {text}")
        for place, (first, *others) in told.items():
            # Each one's own log says all of it; ten thousand that wait are not ten thousand lines of the scheduler's.
            log.info("%s", f"{first} {len(others)} more wait {place}, see their own logs." if others else first)

    @staticmethod
    def _waits(call: Call) -> bool:
        return call.phase not in (Phase.RUNNING, Phase.EXPLAINING, Phase.SETTLED)

    def _ask_airflow(self, calls: Sequence[Call]) -> None:
        """A task that somebody marked or cleared while it was queued is ended here: Airflow tells no executor of it."""
        if self._tracker.link.remote is None or not self._tracker.enquiries.possible:
            return
        for call in calls:
            if call.kind is Kind.WORKLOAD and call.function_call_id and call.work_id not in self._asked:
                self._asked.add(call.work_id)
                self._tracker.enquiries.ask(Question(call.key, call.origin), partial(self._answered, call))

    def _answered(self, call: Call, answer: Answer) -> None:
        self._asked.discard(call.work_id)
        if answer.standing is Standing.GONE and self._waits(call):
            self._tracker.over(call)

    async def _backlog(self, call: Call, known: dict[tuple[str, Resources], Backlog | None]) -> Backlog | None:
        """What Modal says of the Function of a call: asked once for all its calls."""
        submission = call.submission
        if submission is None or not call.function_call_id:
            return None
        key = (submission.profile, call.resources)
        if key not in known:
            try:
                known[key] = await self._tracker.link.made().backlog(*key)
            except FAILURES as error:
                log.info("Modal did not report the backlog of %s (%s)", key, describe(error))
                known[key] = None
        return known[key]

    @staticmethod
    def _place(call: Call) -> str:
        if call.function_call_id is None or call.submission is None:
            return "to be submitted"
        return f"for {Names.function(call.submission.profile)}"

    def _tell(self, call: Call, backlog: Backlog | None) -> str:
        text = self._text(call, backlog)
        call.wait_reported()
        self._say(call.log_path, text, "info")
        news = News(NewsKind.WAITING, call.key, call.origin, call.work_id, call.function_call_id, text)
        self._tracker.news.append(news)
        return text

    def _text(self, call: Call, backlog: Backlog | None) -> str:
        waited = f"{time.time() - call.accepted_at:.0f} s"
        if call.function_call_id is None:
            why = self._tracker.trouble
            if not why and self._tracker.link.remote is None:
                why = f"{server_url()} has not answered yet"
            if not why and call.attempts:
                times = "1 submission" if call.attempts == 1 else f"{call.attempts} submissions"
                why = f"no container has begun it in {times}, and the next one follows after a pause"
            why = why or "earlier workloads are ahead of it"
            return f"Not submitted to Modal yet ({waited}): {why}. It will be submitted automatically."
        when = datetime.fromtimestamp(call.accepted_at, UTC)
        said = [
            f"Waiting for a container on Modal ({waited}): queued at {when:%H:%M:%S} UTC, submitted as function "
            f"call {call.function_call_id}."
        ]
        if backlog is not None and call.submission is not None:
            options = f", {call.resources}" if call.resources.options else ""
            said.append(
                f"Modal has {backlog.inputs} inputs waiting and {backlog.containers} containers for Function "
                f"{Names.function(call.submission.profile)}{options}."
            )
        if call.wait_reports:
            said.append(
                "Airflow revokes a task after [scheduler] task_queued_timeout in the queue; raise it if resources are "
                "scarce."
            )
        return " ".join(said)
