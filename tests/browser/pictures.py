"""Takes the pictures of docs/ui.md: the views of this version in Chromium, with made-up answers.

python -m tests.browser.pictures FOLDER
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page

from tests.browser import examples
from tests.browser.api_server import api_server_process
from tests.browser.driving import NAV, RUN, TASK, Answers, Viewer, chromium

#: File → address, answers, theme, and the height of the window.
PICTURES = {
    "ui-modal-light": (NAV, Answers(rows=10_000), "light", 1500),
    "ui-modal-dark": (NAV, Answers(rows=10), "dark", 1000),
    "ui-task": (TASK, Answers(rows=2), "light", 1000),
    "ui-task-running": (TASK, Answers(task=examples.running_task), "dark", 750),
    "ui-run": (RUN, Answers(rows=80), "dark", 1000),
}


def main() -> None:
    """Write the pictures."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, chromium() as browser, api_server_process(Path(home)) as started:
        viewer = Viewer(browser, started["url"], started["tokens"])
        for name, (path, answers, theme, height) in PICTURES.items():
            with viewer.page(theme=theme, size=(1500, height)) as page:
                answers.serve(page)
                page.goto(viewer.url + path)
                _take(page, folder / f"{name}.png")
                print(folder / f"{name}.png")


def _take(page: Page, file: Path) -> None:
    page.locator(".mf .mf-panel").first.wait_for()
    # Airflow's own parts of the page arrive for some seconds, and it asks on for a run that goes on.
    page.wait_for_timeout(4_000)
    page.screenshot(path=file, animations="disabled")


if __name__ == "__main__":
    main()
