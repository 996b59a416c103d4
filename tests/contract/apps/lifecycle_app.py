"""An app whose containers start slowly, leave traces when they end, or keep others ready. Runs in containers."""

import os
import time

import modal

app = modal.App("lifecycle")


@app.cls(startup_timeout=1)
class SlowToEnter:
    @modal.enter()
    def enter(self) -> None:
        time.sleep(60)

    @modal.method()
    def never(self) -> None:
        pass


@app.cls(scaledown_window=2, enable_memory_snapshot=True)
class Hooks:
    marker: str = modal.parameter()

    @modal.enter(snap=True)
    def first(self) -> None:
        self.seen = ["snap"]

    @modal.enter(snap=False)
    async def second(self) -> None:
        self.seen.append("enter")

    @modal.method()
    def so_far(self) -> list[str]:
        return self.seen

    @modal.method()
    def sleep(self, seconds: float) -> None:
        self.notes()["began"] = True
        time.sleep(seconds)

    @modal.exit()
    def leave(self) -> None:
        # Longer than the control plane would wait if it gave no more than a moment.
        time.sleep(0.5)
        self.notes()["left"] = os.environ["MODAL_TASK_ID"]

    def notes(self) -> modal.Dict:
        return modal.Dict.from_name(self.marker)


@app.function(buffer_containers=1, scaledown_window=2)
def buffered(seconds: float) -> str:
    time.sleep(seconds)
    return os.environ["MODAL_TASK_ID"]


@app.function(min_containers=1)
def warm() -> str:
    return os.environ["MODAL_TASK_ID"]


@app.function(retries=modal.Retries(max_retries=3, initial_delay=0.4, backoff_coefficient=2.0))
def with_backoff(marker: str, key: int, failures: int) -> list[float]:
    """Fail that many times; return when each try was."""
    notes = modal.Dict.from_name(marker)
    tries = [*notes.get(key, []), time.time()]
    notes[key] = tries
    if len(tries) <= failures:
        raise RuntimeError(f"try {len(tries)} of {key}")
    return tries


@app.function(timeout=1, retries=1)
def slow_at_first(marker: str) -> int:
    notes = modal.Dict.from_name(marker)
    tries = int(notes.get("tries", 0)) + 1
    notes["tries"] = tries
    if tries == 1:
        time.sleep(30)
    return tries
