"""Modal in the UI of a real Airflow, with a task on a container, as a browser shows it."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("playwright", reason="the environments of `make matrix` have no Playwright")

from playwright.sync_api import expect

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import finish_run, start_run, wait_at_gate
from tests.airflows import needs_airflow
from tests.browser.driving import NAV, PATIENCE, Viewer, chromium

pytestmark = [needs_airflow("3.1"), pytest.mark.timeout(300)]


def test_a_task_is_followed_from_the_table_to_its_cancellation(stack: ModalStack) -> None:
    """The table of work leads to the try's time line; the run's tab has its container; cancelling ends the try."""
    run_id = start_run(stack, "gate_once", gate="browser")
    instance = wait_at_gate(stack, "gate_once", run_id)
    with chromium() as browser, Viewer(browser, stack.airflow.url, {}).page(f"{NAV}?dag=gate_once") as page:
        row = page.get_by_role("row", name=re.compile(f"gate_once.*{re.escape(run_id)}"))
        expect(row).to_contain_text("running", timeout=PATIENCE)
        expect(row).to_contain_text(instance.hostname)
        expect(page.get_by_role("region", name="Executors").first).to_contain_text("/")
        expect(page.get_by_role("region", name="Profiles").first).to_contain_text("active")

        row.get_by_role("link", name=re.compile("gate_once")).click()
        page.wait_for_url(re.compile("/tasks/pass_gate/plugin/modal-task"))
        expect(page.get_by_role("img", name=re.compile("Time line: .*running"))).to_be_visible(timeout=PATIENCE)
        expect(page.locator(".mf")).to_contain_text(instance.hostname)

        page.goto(f"{stack.airflow.url}/dags/gate_once/runs/{run_id}/plugin/modal-run")
        chart = page.get_by_role("list", name="Containers over time")
        expect(chart).to_contain_text(instance.hostname, timeout=PATIENCE)
        chart.get_by_role("link", name=re.compile("pass_gate")).click()

        page.get_by_role("button", name="Cancel").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name="Cancel").click()
        dialog.get_by_role("button", name="Close").click(timeout=60_000)
        assert finish_run(stack, "gate_once", run_id) == "failed"
        expect(page.get_by_role("region", name="Try 1").first).to_contain_text("failed", timeout=PATIENCE)
