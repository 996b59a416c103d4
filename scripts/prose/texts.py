"""The classes of texts with separate limits, and their files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.prose.passages import Kind, Passage, of_markdown, of_python

#: Pages about interfaces or internals. They address no reader.
REFERENCE = {
    "docs/airflow-versions.md",
    "docs/configuration.md",
    "docs/glossary.md",
    "docs/local-control-plane-options.md",
    "docs/local-control-plane-rpcs.md",
    "docs/lost-work.md",
    "docs/metrics.md",
    "docs/state-folder.md",
    "docs/upstream-notes.md",
}
FOLDERS_OF_CODE = ("src", "scripts", "benchmarks")


@dataclass(frozen=True)
class Page:
    """A page of documentation, whole."""

    path: str
    text: str


def pages(root: Path) -> Iterator[Page]:
    """Return every page of the project."""
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "examples/**/*.md", "tests/**/*.md"):
        for path in sorted(root.glob(pattern)):
            yield Page(str(path.relative_to(root)), path.read_text())


def is_guide(path: str) -> bool:
    """Return whether a page is read by users of modalflow, and addresses them."""
    return path == "README.md" or (path.startswith("docs/") and path.count("/") == 1 and path not in REFERENCE)


def passages(root: Path) -> Iterator[tuple[str, Passage]]:
    """Return every passage of the project with the name of its class."""
    for page in pages(root):
        name = "guides" if is_guide(page.path) else "pages"
        for passage in of_markdown(page.path, page.text):
            yield name, passage
    for folder in (*FOLDERS_OF_CODE, "tests"):
        for path in sorted((root / folder).rglob("*.py")):
            for passage in of_python(str(path.relative_to(root)), path.read_text()):
                yield _class_of(folder, passage), passage


def _class_of(folder: str, passage: Passage) -> str:
    if folder != "src" and passage.kind is Kind.MESSAGE:
        return "ignored"  # Only the author reads the output of a test or a benchmark.
    if passage.kind is Kind.MESSAGE:
        return "messages"
    return "tests" if folder == "tests" else "code"
