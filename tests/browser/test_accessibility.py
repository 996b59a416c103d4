"""The views without a mouse, without colours, and read aloud."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # It has no annotations.
from playwright.sync_api import Locator, Page, expect

from tests.browser.driving import NAV, PATIENCE, RUN, TASK, Answers, Viewer
from tests.support import wait_until

pytestmark = pytest.mark.timeout(300)

expect.set_options(timeout=PATIENCE)


def problems(page: Page, within: str = ".mf-root") -> list[str]:
    """Return what axe-core finds, a line for each element."""
    found = Axe().run(page, within, {"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{rule['id']}: {node['target']}: {node['html'][:200]}: {node['failureSummary']}"
        for rule in found
        for node in rule["nodes"]
    ]


def focused(page: Page) -> Locator:
    return page.locator("*:focus")


def tab_to(page: Page, target: Locator, most: int = 60) -> None:
    """Press Tab until an element has the focus, which must be seen on every way-point within the views."""
    for _ in range(most):
        page.keyboard.press("Tab")
        hidden = page.evaluate(
            "() => { const at = document.activeElement; if (!at.closest('.mf-root')) return '';"
            "const style = getComputedStyle(at);"
            "return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0 ? '' : at.outerHTML }"
        )
        assert hidden == ""
        if target.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"Tab does not reach {target}")


def in_both_themes(page: Page, within: str = ".mf-root") -> list[str]:
    """Return the problems in light and in dark, with Airflow's switch between them."""
    found, colors = [], set()
    for theme, other in (("light", "dark"), ("dark", "light")):
        page.evaluate(f"document.documentElement.classList.replace('{other}', '{theme}')")
        colors.add(page.locator(".mf-panel").first.evaluate("panel => getComputedStyle(panel).backgroundColor"))
        found += [f"{theme}: {problem}" for problem in problems(page, within)]
    assert len(colors) == 2
    return found


#: View → its address, and what it has for each number of rows.
VIEWS = {
    "page": (NAV, ".mf-work tbody tr[aria-rowindex]", {0: 0, 10: 10, 10_000: 31}),
    "task": (TASK, ".mf-part", {0: 0, 1: 2, 10: 4}),
    "run": (RUN, ".mf-gantt[role=listitem]", {0: 0, 10: 1, 100: 10}),
}


@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing(viewer: Viewer, view: str) -> None:
    """Names, roles, order and contrast of each view, with no row, some and many, and with everything unfolded."""
    path, each, numbers = VIEWS[view]
    with viewer.page() as page:
        page.clock.install()
        answers = Answers(rows=0).serve(page)
        page.goto(viewer.url + path)
        expect(page.locator(".mf .mf-panel").first).to_be_visible()
        for answers.rows, shown in numbers.items():
            # All parts of the view have asked again then.
            page.clock.run_for(61_000)
            if shown > 30:
                expect(page.locator(".mf-work table")).to_have_attribute("aria-rowcount", str(answers.rows + 1))
            else:
                expect(page.locator(each)).to_have_count(shown)
            page.locator(".mf").evaluate("view => view.querySelectorAll('details').forEach(one => { one.open = true })")
            assert in_both_themes(page) == [], f"{answers.rows} rows"


def test_axe_finds_nothing_in_dialogs_and_errors(viewer: Viewer) -> None:
    """The same for a confirmation, the doctor's findings, an unreachable Modal, and a narrow window from the right."""
    with viewer.page(language="ar", size=(700, 1000)) as page:
        answers = Answers(problem="Modal at http://127.0.0.1:9 does not answer").serve(page)
        page.goto(viewer.url + NAV)
        expect(page.get_by_role("alert").first).to_be_visible()
        expect(page.locator(".mf-root")).to_have_attribute("dir", "rtl")
        assert in_both_themes(page) == []
        page.locator(".mf-head button").last.click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button").last.click()
        expect(dialog).to_contain_text("deployed 3 h ago")
        assert in_both_themes(page, "dialog") == []
        page.keyboard.press("Escape")
        page.locator(".mf-table button[aria-label$=default]").first.click()
        assert in_both_themes(page, "dialog") == []
        page.keyboard.press("Escape")
        answers.status = 500
        page.locator(".mf-head button").first.click()
        expect(page.get_by_role("alert").first).to_contain_text("the database is gone")
        assert in_both_themes(page) == []


def test_filters_and_order_are_used_and_announced_by_keys(viewer: Viewer) -> None:
    """Each filter, the order and their results, without a mouse."""
    with viewer.page() as page:
        Answers().serve(page)
        page.goto(viewer.url + NAV)
        waiting = page.get_by_role("group", name="State").get_by_role("button", name="waiting")
        expect(page.locator(".mf-work tbody tr").first).to_be_visible()
        tab_to(page, waiting)
        page.keyboard.press("Space")
        page.wait_for_url(re.compile("state=waiting"))
        said = page.get_by_role("status")
        expect(said.filter(has_text="of 10")).to_have_text("3 of 10")
        page.keyboard.press("Tab")
        expect(page.get_by_label("All profiles")).to_be_focused()
        page.keyboard.press("g")
        page.wait_for_url(re.compile("profile=gpu"))
        page.keyboard.press("Tab")
        page.keyboard.press("c")
        page.wait_for_url(re.compile("dag=crawl"))
        page.keyboard.press("Tab")
        page.keyboard.type("load")
        page.wait_for_url(re.compile("q=load"))
        since = page.get_by_role("columnheader", name="Since", exact=True)
        tab_to(page, since.get_by_role("button"))
        for order, words in (
            ("ascending", "Sorted by Since, ascending"),
            ("descending", "Sorted by Since, descending"),
        ):
            page.keyboard.press("Enter")
            expect(since).to_have_attribute("aria-sort", order)
            expect(said.filter(has_text="Sorted")).to_have_text(words)
        page.keyboard.press("Enter")
        expect(since).to_have_attribute("aria-sort", "none")
        expect(said.filter(has_text="Sorted")).to_have_count(0)
        tab_to(page, page.get_by_role("group", name="Spend").get_by_role("button", name="By profile"), most=200)
        page.keyboard.press("Space")
        page.wait_for_url(re.compile("spend=profile"))


def test_actions_are_done_by_keys(viewer: Viewer) -> None:
    """The focus goes into a dialog, stays in it, and comes back to where it was."""
    with viewer.page() as page:
        answers = Answers().serve(page)
        page.goto(viewer.url + NAV)
        pause = page.get_by_role("button", name="Pause default")
        expect(pause).to_be_visible()
        tab_to(page, pause)
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        reason = dialog.get_by_label("Reason, for the users")
        expect(reason).to_be_focused()
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
        expect(pause).to_be_focused()
        page.keyboard.press("Enter")
        expect(reason).to_be_focused()
        page.keyboard.press("Tab")
        expect(dialog.get_by_role("button", name="Keep as it is")).to_be_focused()
        page.keyboard.press("Tab")
        expect(dialog.get_by_role("button", name="Pause")).to_be_focused()
        page.keyboard.press("Enter")
        expect(dialog).to_have_count(0)
        expect(pause).to_be_focused()
        tab_to(page, page.get_by_label(re.compile("^Select etl")).first)
        page.keyboard.press("Space")
        cancel = page.get_by_role("button", name="Cancel 1")
        expect(cancel).to_be_enabled()
        for _ in range(40):
            page.keyboard.press("Shift+Tab")
            if cancel.evaluate("element => element === document.activeElement"):
                break
        page.keyboard.press("Enter")
        expect(dialog.get_by_role("button", name="Keep as it is")).to_be_focused()
        page.keyboard.press("Tab")
        expect(dialog.get_by_role("button", name="Cancel 1")).to_be_focused()
        page.keyboard.press("Enter")
        expect(dialog.get_by_role("button", name="Close")).to_be_focused()
        page.keyboard.press("Enter")
        expect(dialog).to_have_count(0)
        assert answers.posted() == ["/actions/profile/default/pause", "/actions/cancel"]


def test_charts_have_their_figures_in_words(viewer: Viewer) -> None:
    """Each picture has a name with its figures; a bar of the run's chart is a link with its state and durations."""
    with viewer.page() as page:
        Answers(rows=30).serve(page)
        page.goto(viewer.url + NAV)
        expect(page.get_by_role("img", name=re.compile(r"Dollars by day: \d{4}-\d\d-\d\d \$\d"))).to_be_visible()
        page.goto(viewer.url + TASK)
        memory = page.get_by_role("img", name=re.compile("Memory over time, at most 2.9 GiB"))
        expect(memory.first).to_be_visible()
        page.goto(viewer.url + RUN)
        bar = page.get_by_role("link", name=re.compile(r"load \[4\], success: .*, 1.5 s to start \(warm\)"))
        expect(bar.first).to_be_visible()


#: Note in ``window.said`` what a screen reader would say: the text of each live region of the views that changes, and
#: of each new one.
LISTEN = """() => {
  const regions = "[role=alert], [role=status], [role=log], [aria-live]:not([aria-live=off])";
  const say = (region) => { if (region?.closest(".mf-root")) window.said.push(region.textContent.trim()); };
  window.said = [];
  new MutationObserver((changes) => {
    for (const { target, addedNodes } of changes) {
      say((target.nodeType === Node.ELEMENT_NODE ? target : target.parentElement)?.closest(regions));
      for (const added of addedNodes)
        if (added.nodeType === Node.ELEMENT_NODE)
          [added, ...added.querySelectorAll("*")].filter((each) => each.matches(regions)).forEach(say);
    }
  }).observe(document.body, { subtree: true, childList: true, characterData: true });
}"""


def test_live_regions_say_what_is_new_and_nothing_else(viewer: Viewer) -> None:
    """Neither the age of the data nor a new answer is announced: only what the user did, and each new problem once."""
    with viewer.page() as page:
        page.clock.install()
        answers = Answers(problem="Modal does not answer").serve(page)
        page.goto(viewer.url + NAV)
        expect(page.get_by_role("alert").first).to_be_visible()
        expect(page.locator(".mf-work tbody tr").first).to_be_visible()
        page.evaluate(LISTEN)

        def is_said(*texts: str) -> None:
            """Wait until all that was said has these texts, in their order, and forget it."""
            wait_until(lambda: len(page.evaluate("window.said")) >= len(texts), 60, f"{texts} to be said")
            page.clock.run_for(30_000)
            said = page.evaluate("window.said.splice(0)")
            assert len(said) == len(texts) and all(map(str.__contains__, said, texts)), said

        aged = page.get_by_text(re.compile("The data below is from"))
        before, asked = aged.first.inner_text(), len(answers.asked)
        page.clock.run_for(30_000)
        expect(aged.first).not_to_have_text(before)
        assert len(answers.asked) > asked
        is_said()
        page.get_by_role("group", name="State").get_by_role("button", name="waiting").click()
        is_said("3 of 10")
        page.get_by_role("columnheader", name="Since", exact=True).get_by_role("button").click()
        is_said("Sorted by Since, ascending")
        answers.problem = "Modal refused the credentials"
        page.clock.run_for(30_000)
        is_said("Modal refused the credentials")
