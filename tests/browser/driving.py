"""A Chromium that looks at Airflow's UI as a user of it."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, CDPSession, Error, Page, Request, Route, sync_playwright
from pydantic import BaseModel

from tests.browser import examples

#: Milliseconds for what a page shows, on a busy machine.
PATIENCE = 60_000

#: Page → its address below Airflow's.
NAV = "/plugin/modal"
RUN = "/dags/losses/runs/run-0/plugin/modal-run"
TASK = "/dags/losses/runs/run-0/tasks/once/plugin/modal-task"

_API = re.compile("/modalflow/ui/api/")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium of this machine. A test is skipped if there is none."""
    path = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
    )
    if not path:
        pytest.skip("no chromium on PATH; install one (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        # Root and most containers lack what its sandbox needs; the pages are our own.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


@dataclass(frozen=True)
class Viewer:
    """A user with a browser window at an Airflow."""

    browser: Browser
    url: str
    tokens: dict[str, str]
    contexts: dict[str, BrowserContext] = field(default_factory=dict)
    """By user. They last, because each has its own cache, and Airflow's UI is large."""

    @contextmanager
    def page(
        self,
        path: str = "",
        *,
        user: str = "root",
        theme: str = "light",
        zone: str = "UTC",
        language: str = "en",
        size: tuple[int, int] = (1500, 1000),
    ) -> Iterator[Page]:
        """A page of Airflow's UI, logged in. Fails if a script of ours did."""
        context = self._context(user)
        page = context.new_page()
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.add_init_script(
            f"localStorage.setItem('theme', {json.dumps(theme)});"
            f"localStorage.setItem('i18nextLng', {json.dumps(language)});"
            f"localStorage.setItem('timezone', {json.dumps(json.dumps(zone))});"
        )
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)) if not _is_airflows(error) else None)
        try:
            if path:
                page.goto(self.url + path)
            yield page
            assert not errors, errors
        finally:
            page.close()

    def _context(self, user: str) -> BrowserContext:
        if user not in self.contexts:
            context = self.contexts[user] = self.browser.new_context(locale="en-US")
            context.set_default_timeout(PATIENCE)
            if token := self.tokens.get(user):
                context.add_cookies([{"name": "_token", "value": token, "url": self.url}])
        return self.contexts[user]


def processor_time(session: CDPSession) -> float:
    """Return the seconds of a processor that the tasks of the page's own thread have used."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))


def _is_airflows(error: Error) -> bool:
    """Return whether Airflow's own page has aborted a request, without our code: Airflow 3.2 does not handle that."""
    stack = error.stack or ""
    return stack.startswith("AbortError: ") and "/static/assets/" in stack and "/modalflow/" not in stack


@dataclass
class Answers:
    """The UI's API in place of the API server's, with as many rows as a test wants."""

    rows: int = 10
    manage: bool = True
    problem: str = ""
    """Why the API server cannot reach Modal."""
    task: Callable[[float], BaseModel] | None = None
    """Another answer about a task instance, from the present time."""
    status: int = 200
    """Another one is an error of the API server."""
    asked: list[Request] = field(default_factory=list)

    def serve(self, page: Page) -> Answers:
        """Answer the page's requests from now on."""
        page.route(_API, self._answer)
        return self

    def posted(self) -> list[str]:
        """Return the paths of the actions that were asked for."""
        return [path_of(request.url) for request in self.asked if request.method == "POST"]

    def _answer(self, route: Route) -> None:
        request = route.request
        self.asked.append(request)
        if self.status != 200:
            route.fulfill(status=self.status, json={"detail": "the database is gone"})
        elif request.method == "POST":
            self._act(route, path_of(request.url))
        else:
            route.fulfill(body=self._read(request.url).model_dump_json(), content_type="application/json")

    def _read(self, url: str) -> BaseModel:
        query, path, now = parse_qs(urlsplit(url).query), path_of(url), time.time()
        several: dict[str, Callable[[], BaseModel]] = {
            "overview": lambda: examples.overview_of(self.rows, now, manage=self.manage, problem=self.problem),
            "work": lambda: examples.work_of(
                self.rows, now, cancellable=self.manage, states=query.get("state", ()), problem=self.problem
            ),
            "spend": lambda: examples.spend_of(query["by"][0], now, empty=self.rows == 0),
            "task": lambda: self.task(now) if self.task else self._tries(now),
            "run": lambda: examples.run_of(self.rows, now),
        }
        return several[path.split("/")[1]]()

    def _tries(self, now: float) -> BaseModel:
        return examples.task_of(min(3, self.rows), now, cancellable=self.manage)

    def _act(self, route: Route, path: str) -> None:
        if path.endswith("/doctor"):
            lines = [
                {"name": "worker", "status": "ok", "detail": "deployed 3 h ago", "advice": "", "seconds": 0.4},
                {"name": "relay", "status": "warn", "detail": "it is slow", "advice": "Move it.", "seconds": None},
            ]
            route.fulfill(body="\n".join(json.dumps(line) for line in lines), content_type="application/x-ndjson")
        elif path.endswith("/cancel"):
            ids = json.loads(route.request.post_data or "{}")["work_ids"]
            results = [{"work_id": each, "done": True, "how": "ended after 1.2 s"} for each in ids]
            route.fulfill(json={"results": results})
        else:
            name = path.split("/")[-2]
            route.fulfill(json={"name": name, "state": "paused", "state_by": "root", "state_since": time.time()})


def path_of(url: str) -> str:
    """Return the path below the API's root."""
    return urlsplit(url).path.partition("/modalflow/ui/api")[2]
