"""The views of an Airflow below a path: ``[api] base_url = http://host/airflow/``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.api_server import api_server_process
from tests.browser.driving import NAV, PATIENCE, RUN, TASK, Answers, Viewer

pytestmark = pytest.mark.timeout(300)

expect.set_options(timeout=PATIENCE)

PREFIX = "/airflow"


@pytest.fixture(scope="module")
def viewer(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    with api_server_process(tmp_path_factory.mktemp("airflow"), PREFIX) as started:
        yield Viewer(browser, started["url"], started["tokens"])


def test_every_request_and_link_is_below_the_prefix(viewer: Viewer) -> None:
    """The bundle, the file of a language, the API and the links: a proxy forwards nothing else."""
    host = urlsplit(viewer.url).netloc
    asked: list[str] = []
    with viewer.page(language="de") as page:
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{viewer.url}/")
        page.get_by_role("link", name="Modal").click()
        page.wait_for_url(f"{viewer.url}{NAV}")
        row = page.locator(".mf-work tbody tr[aria-rowindex]").first
        expect(row).to_contain_text(".once run")
        expect(page.locator(".mf-root")).to_have_attribute("lang", "de")
        links = page.locator(".mf a[href]").evaluate_all("all => all.map(one => one.href)")
        row.get_by_role("link").first.click()
        page.wait_for_url(re.compile(re.escape(f"{viewer.url}/dags/") + ".*/plugin/modal-task"))
        expect(page.locator(".mf .mf-head")).to_be_visible()
        page.goto(viewer.url + TASK)
        expect(page.locator(".mf .mf-part").first).to_be_visible()
        page.goto(viewer.url + RUN)
        expect(page.locator(".mf-panel > .mf-state, .mf-gantt-box").first).to_be_visible()
    paths = [urlsplit(url).path for url in asked if urlsplit(url).netloc == host]
    assert [path for path in paths if not path.startswith(f"{PREFIX}/")] == []
    for part in ("static/main.js", "static/languages/de-", "api/overview", "api/work", "api/task/", "api/run/"):
        assert any(path.startswith(f"{PREFIX}/modalflow/ui/{part}") for path in paths), part
    own = [urlsplit(link).path for link in links if urlsplit(link).netloc == host]
    assert own
    assert [path for path in own if not path.startswith(f"{PREFIX}/")] == []


def test_actions_are_below_the_prefix(viewer: Viewer) -> None:
    """A confirmed action is sent to the API of this Airflow."""
    with viewer.page() as page:
        answers = Answers().serve(page)
        page.goto(viewer.url + NAV)
        page.get_by_role("button", name="Pause default").click()
        page.get_by_role("dialog").get_by_role("button", name="Pause").click()
        expect(page.get_by_role("dialog")).to_have_count(0)
        (post,) = (request.url for request in answers.asked if request.method == "POST")
        assert urlsplit(post).path == f"{PREFIX}/modalflow/ui/api/actions/profile/default/pause"
