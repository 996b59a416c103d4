"""What users read never installs `modalflow` from a package index: there it is another project."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]

#: Installing commands, and what they install, up to the end of the command.
_INSTALLS = re.compile(r"(?:pip3?|uv|pipx|poetry|conda) (?:pip )?(?:install|add|run --with)\b([^`\n|;&]*)")
#: The package by its name alone: not a file of that name, not a folder, not a URL.
_BY_NAME = re.compile(r"(?<![\w./-])modalflow(?:\[[\w,]*\])?(?:[=<>~!]=?[\w.]+)?(?![\w./@\[-]| @)")


def from_an_index(text: str) -> list[str]:
    """Return the commands in a text that install `modalflow` from an index."""
    return [found[0] for found in _INSTALLS.finditer(text) if _BY_NAME.search(found[1])]


def pages() -> list[str]:
    """Return the files that users read, or that have what they read."""
    listed = subprocess.run(
        ["git", "ls-files", "*.md", "src/*.py", "examples", "Makefile", ".ci", "scripts", "benchmarks"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in listed.stdout.splitlines() if (CHECKOUT / name).is_file()]


@pytest.mark.parametrize(
    "text",
    [
        "$ pip install modalflow",
        "$ pip install 'modalflow[airflow]'",
        'pip install "modalflow[demo]"',
        "uv pip install -U modalflow==0.4.0 rich",
        "uv add modalflow",
        "RUN pip install --no-cache-dir modalflow",
    ],
)
def test_an_index_is_recognised(text: str) -> None:
    """The check finds each way to write it."""
    assert from_an_index(text)


@pytest.mark.parametrize(
    "text",
    [
        'pip install "$(ls dist/modalflow-*.whl)[airflow]"',
        "pip install 'dist/modalflow-0.5.0-py3-none-any.whl[demo]'",
        "pip install 'modalflow[airflow] @ file:///tmp/modalflow-0.5.0-py3-none-any.whl'",
        "pip uninstall modalflow",
        "pip install apache-airflow-providers-modal; modalflow deploy",
    ],
)
def test_a_wheel_is_not(text: str) -> None:
    """What installs this project passes."""
    assert not from_an_index(text)


def test_no_page_installs_from_an_index() -> None:
    """Documentation, help, errors, examples: all of them install the wheel of `make wheel`."""
    found = {name: lines for name in pages() if (lines := from_an_index((CHECKOUT / name).read_text(errors="replace")))}
    assert not found
