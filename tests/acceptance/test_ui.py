"""Modal in the UI of a real Airflow, with tasks on containers, as a browser shows it and as users click through it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytest.importorskip("playwright", reason="the environments of `make matrix` have no Playwright")

from playwright.sync_api import Browser, Page, expect

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import finish_run, scheduler_log, start_run, wait_at_gate
from tests.acceptance.dag_sources import Sources
from tests.airflows import AIRFLOW, needs_airflow
from tests.browser.driving import NAV, PATIENCE, Viewer, chromium
from tests.support import wait_until

pytestmark = pytest.mark.timeout(300)

#: What Airflow's UI itself may miss, for example a favicon.
OWN = "/modalflow/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def viewer(browser: Browser, stack: ModalStack) -> Viewer:
    return Viewer(browser, stack.airflow.url, {})


@contextmanager
def page_of(viewer: Viewer, path: str) -> Iterator[Page]:
    """A page of which every request to modalflow succeeds."""
    with viewer.page() as page:
        failed: list[str] = []
        page.on("response", lambda found: _note(failed, found.url, found.status))
        page.on(
            "requestfailed", lambda found: _note(failed, found.url, 0 if found.failure != "net::ERR_ABORTED" else 200)
        )
        page.goto(viewer.url + path)
        yield page
        assert failed == []


def _note(failed: list[str], url: str, status: int) -> None:
    if OWN in url and (status == 0 or status >= 400):
        failed.append(f"{status} {url}")


def confirm(page: Page, button: str, verb: str) -> None:
    """Click an action, and then its confirmation."""
    page.get_by_role("button", name=button).click()
    page.get_by_role("dialog").get_by_role("button", name=verb).click()


def expect_profile(page: Page, name: str, state: str | re.Pattern[str]) -> None:
    row = page.get_by_role("region", name="Profiles").first.get_by_role("row", name=re.compile(rf"^{name}\b"))
    expect(row).to_contain_text(state, timeout=PATIENCE)


@needs_airflow("3.1")
def test_a_task_is_followed_from_the_navigation_to_its_cancellation(stack: ModalStack, viewer: Viewer) -> None:
    """The table of work leads to the try's time line; the run's tab has its container; cancelling ends the try."""
    run_id = start_run(stack, "gate_once", gate="browser")
    instance = wait_at_gate(stack, "gate_once", run_id)
    with page_of(viewer, "/") as page:
        # Airflow 3.1 and 3.2 have it there as the only one of a plugin; with more, below "Plugins".
        page.get_by_role("link", name="Modal", exact=True).click()
        page.wait_for_url(re.compile(f"{NAV}$"))
        row = page.get_by_role("row", name=re.compile(f"gate_once.*{re.escape(run_id)}"))
        expect(row).to_contain_text("running", timeout=PATIENCE)
        expect(row).to_contain_text(instance.hostname)
        expect(page.get_by_role("region", name="Executors").first).to_contain_text("/")
        expect_profile(page, "default", "active")

        row.get_by_role("link", name=re.compile("gate_once")).click()
        page.wait_for_url(re.compile("/tasks/pass_gate/plugin/modal-task"))
        expect(page.get_by_role("img", name=re.compile("Time line: .*running", re.IGNORECASE))).to_be_visible(
            timeout=PATIENCE
        )
        expect(page.locator(".mf")).to_contain_text(instance.hostname)

        page.goto(f"{stack.airflow.url}/dags/gate_once/runs/{run_id}")
        page.locator("a[href*='plugin/modal-run']").first.click()
        page.wait_for_url(re.compile("/plugin/modal-run"))
        chart = page.get_by_role("list", name="Containers over time")
        expect(chart).to_contain_text(instance.hostname, timeout=PATIENCE)
        chart.get_by_role("link", name=re.compile("pass_gate")).click()
        page.wait_for_url(re.compile("/tasks/pass_gate/plugin/modal-task"))

        confirm(page, "Cancel", "Cancel")
        page.get_by_role("dialog").get_by_role("button", name="Close").click(timeout=PATIENCE)
        assert finish_run(stack, "gate_once", run_id) == "failed"
        expect(page.get_by_role("region", name="Try 1").first).to_contain_text("failed", timeout=PATIENCE)


@needs_airflow("3.1")
def test_a_profile_is_drained_resumed_and_paused(stack: ModalStack, viewer: Viewer) -> None:
    """What runs goes on; a new task waits with the reason until the profile is resumed; each change shows at once."""
    api = stack.airflow.api
    running = start_run(stack, "gate_once", gate="drained")
    wait_at_gate(stack, "gate_once", running)
    with page_of(viewer, f"{NAV}?dag=gate_once") as page:
        expect_profile(page, "default", "active")
        confirm(page, "Drain default", "Drain")
        try:
            expect_profile(page, "default", "draining")
            # The scheduler follows within some seconds, and logs it.
            noticed = "Profile default is drained by"
            wait_until(lambda: any(noticed in line for line in scheduler_log(stack)), 60.0, "the executor's notice")
            later = start_run(stack, "gate_once", gate="drained")
            row = page.get_by_role("row", name=re.compile(f"gate_once.*{re.escape(later)}"))
            expect(row).to_contain_text("waiting", timeout=PATIENCE)
            expect(row).to_contain_text("default is drained by")
            api.set_variable("drained", "open")
            assert finish_run(stack, "gate_once", running) == "success"
            # "drained" only if no other test's task runs there.
            expect_profile(page, "default", re.compile("drain(ed|ing)"))
            confirm(page, "Resume default", "Resume")
            expect_profile(page, "default", "active")
            assert finish_run(stack, "gate_once", later) == "success"
            page.get_by_role("button", name="Pause default").click()
            page.get_by_label("Reason, for the users whose tasks wait").fill("new drivers")
            page.get_by_role("dialog").get_by_role("button", name="Pause").click()
            expect_profile(page, "default", "paused")
            expect_profile(page, "default", "new drivers")
        finally:
            page.get_by_role("button", name="Resume default").click()
            page.get_by_role("dialog").get_by_role("button", name="Resume").click()
            expect_profile(page, "default", "active")


@needs_airflow("3.1")
def test_the_doctor_examines_the_stack(stack: ModalStack, sources: Sources, viewer: Viewer) -> None:
    """After a confirmation, line by line; the API server and a container are well."""
    sources.ship(stack)
    with page_of(viewer, NAV) as page:
        confirm(page, "Run the doctor", "Run the doctor")
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text(re.compile(r"Passed: \d+, warnings: \d+, failures: 0"), timeout=2 * PATIENCE)
        expect(dialog).to_contain_text("task token in the container")
        dialog.get_by_role("button", name="Close").click()


@pytest.mark.skipif(AIRFLOW >= (3, 1), reason="later versions have a place for it")
def test_airflow_3_0_has_no_trace_of_the_views(stack: ModalStack, viewer: Viewer) -> None:
    """No page, no API, no link, and no line of a log that would worry anyone."""
    run_id = start_run(stack, "gate_once", gate="without views")
    stack.airflow.api.set_variable("without views", "open")
    assert finish_run(stack, "gate_once", run_id) == "success"
    with viewer.page(f"/dags/gate_once/runs/{run_id}/tasks/pass_gate") as page:
        expect(page.get_by_text("pass_gate").first).to_be_visible(timeout=PATIENCE)
        expect(page.get_by_text("Modal", exact=True)).to_have_count(0)
        found = page.request.get(f"{stack.airflow.url}/modalflow/version")
        assert found.json()["installed"]["ours"]
    api = stack.airflow.api
    (own,) = [each for each in api.request("GET", "plugins").json()["plugins"] if each["name"] == "modalflow"]
    assert [each["url_prefix"] for each in own["fastapi_apps"]] == ["/modalflow"]
    assert not own["global_operator_extra_links"] and not own.get("react_apps")
    for name, program in stack.airflow.programs.items():
        lines = program.log.read_text(errors="replace").splitlines()
        worrying = [line for line in lines if re.search(r"plugin|modalflow\.ui|react_app", line, re.IGNORECASE)]
        assert not [line for line in worrying if re.search("warn|error|traceback", line, re.IGNORECASE)], (
            name,
            worrying,
        )
