"""How long the page of modalflow takes in a browser, beside a page of Airflow's own: python -m benchmarks.ui_page.

Airflow's real API server, with 10,000 pieces of work, and a Chromium without a window. Each run clicks on a link in
Airflow's navigation, from its first page, and waits until the browser has painted the first row. The pages take turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import expect

from benchmarks import machine
from tests.browser.api_server import api_server_process
from tests.browser.driving import PATIENCE, Viewer, chromium, processor_time

#: Milliseconds in which Airflow's first page finishes what it began.
REST = 3_000

#: Times are the page's own: a check from outside would come up to a second late.
_TIME = """selector => {
  const times = (window.timed = {});
  document.addEventListener("click", () => { times.began = performance.now() }, { capture: true, once: true });
  const check = () => {
    if (!times.began || !document.querySelector(selector)) requestAnimationFrame(check);
    // The next task comes after the frame that has the row.
    else setTimeout(() => { times.painted = performance.now() });
  };
  check();
}"""


@dataclass(frozen=True)
class Place:
    """A link in Airflow's navigation, and what shows that its page is ready."""

    title: str
    link: str
    row: str
    goal: str = ""
    """Of the median."""


PLACES = (
    Place("Modal, 10,000 rows", "Modal", ".mf-work tbody tr[aria-rowindex]", "<= 1"),
    Place("Airflow's list of DAGs, one row", "Dags", "a[href$='/dags/losses']"),
)


@dataclass(frozen=True)
class Visit:
    """Seconds from the click to the painted row, and seconds of a processor in the page's own thread."""

    took: float
    used: float


def visit(viewer: Viewer, place: Place) -> Visit:
    """Open Airflow's first page, and go from there to ``place``."""
    with viewer.page("/") as page:
        link = page.get_by_role("link", name=place.link, exact=True)
        expect(link).to_be_visible(timeout=PATIENCE)
        page.wait_for_timeout(REST)
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.evaluate(_TIME, place.row)
        before = processor_time(session)
        link.click()
        page.wait_for_function("window.timed.painted", timeout=PATIENCE)
        took = float(page.evaluate("(timed.painted - timed.began) / 1000"))
        return Visit(took, processor_time(session) - before)


def table(name: str, found: Sequence[Sequence[Visit]]) -> str:
    """Return the rows of a table in Markdown; each of ``found`` has a visit for each of ``PLACES``."""
    lines = []
    for place, of_place in zip(PLACES, zip(*found, strict=True), strict=True):
        took = [each.took for each in of_place]
        used = statistics.median(each.used for each in of_place)
        figures = f"{statistics.median(took):.2f} | {max(took):.2f} | {used:.2f}"
        lines.append(f"| {name} | {place.title} | {place.goal} | {figures} |")
    return "\n".join(lines)


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ui_page", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    before = machine.load()
    with chromium() as browser, tempfile.TemporaryDirectory() as folder, api_server_process(Path(folder)) as started:

        def viewer() -> Viewer:
            return Viewer(browser, started["url"], started["tokens"])

        first = [[visit(viewer(), place) for place in PLACES] for _ in range(runs)]
        known = viewer()
        again = [[visit(known, place) for place in PLACES] for _ in range(runs + 1)][1:]
        version = browser.version
    print(
        f"{machine.describe()}, Chromium {version}; load before {before:.1f}, after {machine.load():.1f}; {runs} runs\n"
    )
    print("| visit | page | goal: median (s) | median (s) | slowest (s) | processor time of the page (s) |")
    print("|---|---|---|---:|---:|---:|")
    print(table("first", first))
    print(table("again", again))


if __name__ == "__main__":
    main()
