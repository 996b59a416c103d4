"""The check of a built site."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.check_site import problems


def site(folder: Path, **pages: str) -> Path:
    """Write pages into a folder."""
    for name, body in pages.items():
        (folder / f"{name}.html").write_text(f"<html><body>{body}</body></html>")
    return folder


def test_a_site_whose_links_lead_somewhere_passes(tmp_path: Path) -> None:
    """Links to pages, anchors and files are followed, and links to other hosts are not."""
    (tmp_path / "style.css").write_text("")
    there = '<a href="b.html#there">b</a> <a href="#here">here</a> <link rel="stylesheet" href="style.css">'
    built = site(tmp_path, a=f'{there} <p id="here"><a href="https://modal.com/nowhere">', b='<h1 id="there">')
    assert list(problems(built)) == []


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('<a href="missing.html">', "has no missing.html"),
        ('<a href="../examples/modal">', "has no examples/modal"),
        ('<a href="#missing">', "no such anchor"),
        ('<a href="a.html#missing">', "no such anchor"),
        ('<script src="https://cdn.example.com/x.js">', "from another host"),
        ('<link rel="stylesheet" href="https://fonts.example.com/css">', "from another host"),
        ('<img src="//example.com/x.png">', "from another host"),
    ],
)
def test_what_leads_nowhere_is_found(tmp_path: Path, body: str, problem: str) -> None:
    """A missing file, a missing anchor and a foreign script are each one line."""
    (found,) = problems(site(tmp_path, a=body))
    assert problem in found


def test_an_empty_site_is_a_problem(tmp_path: Path) -> None:
    """A build that wrote nothing does not pass."""
    assert list(problems(tmp_path)) != []
