"""The views in the languages of Airflow's UI, chosen as a user does, with Airflow's own translations beside them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import airflow
import pytest
from playwright.sync_api import Page, expect

from modalflow.ui import bundle
from tests.browser.driving import NAV, PATIENCE, RUN, TASK, Answers, Viewer

pytestmark = pytest.mark.timeout(300)

expect.set_options(timeout=PATIENCE)

#: The languages that this version of Airflow offers; Airflow 3.0 has none.
AIRFLOWS = {path.name for path in (Path(airflow.__file__).parent / "ui/dist/i18n/locales").glob("*")} - {"en"}


def file_of(language: str) -> Path:
    """Return the file of a language as built."""
    (path,) = (bundle.FOLDER / "languages").glob(f"{language}-????????????.json")
    return path


def texts_of(language: str) -> dict[str, Any]:
    texts: dict[str, Any] = json.loads(file_of(language).read_text())
    return texts


def heading(page: Page, text: str) -> None:
    expect(page.locator(".mf").get_by_role("heading", name=text, exact=True)).to_be_visible()


def choose(page: Page, language: str) -> None:
    """Do what Airflow's UI does when a user chooses a language: also one that it does not offer."""
    page.evaluate("code => localStorage.setItem('i18nextLng', code)", language)
    page.evaluate("code => document.documentElement.setAttribute('lang', code)", language)


def test_every_language_of_airflow_has_texts() -> None:
    """A version of Airflow with a new language fails here, and is English until it has a file."""
    assert {path.name.rpartition("-")[0] for path in (bundle.FOLDER / "languages").iterdir()} >= AIRFLOWS


def test_a_language_chosen_in_airflow_is_followed_at_once(viewer: Viewer) -> None:
    """Without a reload; the texts come as one small file, and English ones with no file at all."""
    with viewer.page() as page:
        Answers().serve(page)
        files: list[str] = []
        page.on("request", lambda request: files.append(request.url) if "/languages/" in request.url else None)
        page.goto(viewer.url + NAV)
        heading(page, "Executors")
        assert files == []
        page.get_by_role("button", name="User").click()
        page.get_by_role("menuitem", name="Select Language").click()
        page.get_by_role("dialog").get_by_role("combobox").fill("Deutsch")
        page.keyboard.press("Enter")
        page.keyboard.press("Escape")
        heading(page, "Executoren")
        expect(page.locator(".mf-root")).to_have_attribute("lang", "de")
        expect(page.locator(".mf")).to_contain_text("laufend")
        assert [url.rpartition("/")[2] for url in files] == [file_of("de").name]


@pytest.mark.parametrize("language", ["ja", "ar"])
def test_a_stored_language_is_that_of_the_views(viewer: Viewer, language: str) -> None:
    """The language is right from the start, for a page that is opened with it."""
    with viewer.page(language=language) as page:
        Answers().serve(page)
        page.goto(viewer.url + NAV)
        heading(page, texts_of(language)["executors"])
        expect(page.locator(".mf-root")).to_have_attribute("lang", language)


def test_all_languages_fit_into_the_page(viewer: Viewer) -> None:
    """One after the other, with the direction of each; no text is wider than its place."""
    with viewer.page() as page:
        Answers().serve(page)
        page.goto(viewer.url + NAV)
        heading(page, "Executors")
        for language in sorted(AIRFLOWS):
            choose(page, language)
            heading(page, texts_of(language)["executors"])
            root = page.locator(".mf-root")
            expect(root).to_have_attribute("lang", language)
            expect(root).to_have_attribute("dir", "rtl" if language in ("ar", "he") else "ltr")
            wide = page.locator(".mf").evaluate("view => view.scrollWidth - view.clientWidth")
            assert wide <= 1, language


def test_texts_of_the_server_are_marked_as_english(viewer: Viewer) -> None:
    """A screen reader changes its voice for reasons and advice, which exist in English only."""
    with viewer.page(language="de") as page:
        Answers().serve(page)
        page.goto(viewer.url + TASK)
        heading(page, "Versuch 1")
        for text in ("ran out of memory at 4,096 MiB", "Ask for more memory"):
            assert page.get_by_text(text).first.evaluate("text => text.closest('[lang]').lang") == "en"
        expect(
            page.locator(".mf").get_by_role("img", name=re.compile("Zeitverlauf: .*In Airflow 400 ms"))
        ).not_to_have_count(0)
        page.goto(viewer.url + RUN)
        heading(page, "Kritischer Pfad")


def test_without_its_file_a_language_is_english(viewer: Viewer) -> None:
    """The views work behind a proxy that refuses the file, or with a language that they do not have."""
    with viewer.page(language="fr") as page:
        Answers().serve(page)
        page.route("**/languages/*", lambda route: route.fulfill(status=403, body="no"))
        page.goto(viewer.url + NAV)
        heading(page, "Executors")
        expect(page.locator(".mf-root")).to_have_attribute("lang", "en")
        page.unroute("**/languages/*")
        choose(page, "pt-BR")
        heading(page, texts_of("pt")["budgets"])
        choose(page, "tlh")
        heading(page, "Executors")
        expect(page.locator(".mf-root")).to_have_attribute("lang", "en")
