"""The tables of modules in ARCHITECTURE.md, from the first sentences of module docstrings.

Owns what stands between the marks. A chapter's heading and story are written by hand: a folder without a chapter is an
error, and so is a chapter without a folder.

Usage: python -m scripts.module_tables ARCHITECTURE.md
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

SOURCES = Path(__file__).parents[1] / "src" / "modalflow"
#: The package itself.
TOP = "modalflow"
_TABLE = re.compile(r"<!-- modules of (\S+) -->\n.*?<!-- end of modules -->", re.DOTALL)
_SENTENCE = re.compile(r"(.+?[.?!])(?=\s+[A-Z`*(]|$)")


def folders() -> dict[str, Path]:
    """Return every folder of the package that has modules, by its name in the page."""
    found = {path.parent for path in SOURCES.rglob("*.py") if path.name != "__init__.py"}
    return {_name(folder): folder for folder in sorted(found)}


def _name(folder: Path) -> str:
    return TOP if folder == SOURCES else folder.relative_to(SOURCES).as_posix()


def summary(module: Path) -> str:
    """Return the first sentence of a module's docstring, as Markdown."""
    first = (ast.get_docstring(ast.parse(module.read_text())) or "").partition("\n\n")[0]
    text = " ".join(first.split()).replace("``", "`").replace("|", "\\|")
    found = _SENTENCE.match(text)
    # Code spans are left alone; elsewhere an underscore would begin emphasis.
    parts = re.split(r"(`[^`]*`)", found[1] if found else text)
    return "".join(part if part.startswith("`") else re.sub(r"([_<])", r"\\\1", part) for part in parts)


def table(folder: Path) -> str:
    """Return the table of a folder's modules."""
    modules = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
    rows = [f"| `{module.name}` | {summary(module)} |" for module in modules]
    return "\n".join(["| module | |", "|---|---|", *rows])


def filled(page: str) -> str:
    """Return the page with its tables made anew."""
    known = folders()
    chapters = _TABLE.findall(page)
    problems = list(_problems(known, chapters))
    if problems:
        raise SystemExit("\n".join(problems))
    return _TABLE.sub(
        lambda found: f"<!-- modules of {found[1]} -->\n{table(known[found[1]])}\n<!-- end of modules -->", page
    )


def _problems(known: dict[str, Path], chapters: list[str]) -> Iterator[str]:
    for name in sorted(known.keys() - set(chapters)):
        yield (
            f"ARCHITECTURE.md has no chapter of {name}: add a heading, two or three sentences, and the lines "
            f"<!-- modules of {name} --> and <!-- end of modules -->"
        )
    for name in sorted(set(chapters) - known.keys()):
        yield f"ARCHITECTURE.md has a chapter of {name}, and src/modalflow has no such folder: remove or rename it"


def main(path: Path) -> None:
    """Write the tables into the page."""
    path.write_text(filled(path.read_text()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
