"""Figures about the structure of a checkout: sizes, names, imports and types of ``src``, to compare two of them.

python -m scripts.figures [FOLDER …]    a column for each checkout; the default is this one
python -m scripts.figures --check       fail if a limit of the house is exceeded, and name what exceeds it
"""

from __future__ import annotations

import argparse
import ast
import re
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_LINES = 400
MAX_FILES = 12

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Module:
    """A parsed Python file of ``src``."""

    path: Path
    name: str
    text: str
    tree: ast.Module

    @property
    def subsystem(self) -> str:
        """Return the first folder below ``modalflow``, or ``""`` for a module at the top."""
        return self.name.split(".")[1] if self.name.count(".") > 1 else ""

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())


def modules_of(checkout: Path) -> list[Module]:
    """Parse every Python file below ``src`` of a checkout."""
    found = []
    source = checkout / "src"
    for path in sorted(source.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        name = ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__")
        found.append(Module(path.relative_to(checkout), name, text, ast.parse(text)))
    return found


def nodes(modules: Iterable[Module], *kinds: type[ast.AST]) -> Iterator[ast.AST]:
    """Yield the nodes of these kinds in all modules."""
    for module in modules:
        yield from (node for node in ast.walk(module.tree) if isinstance(node, kinds))


def function_lengths(modules: Iterable[Module]) -> list[int]:
    """Return the number of lines of each function, from ``def`` to its last statement."""
    return [node.end_lineno - node.lineno + 1 for node in nodes(modules, *_FUNCTIONS)]  # type: ignore[attr-defined]


def imports_in_functions(modules: Iterable[Module]) -> int:
    """Count the import statements that run only when a function is called."""
    inner = (child for node in nodes(modules, *_FUNCTIONS) for child in ast.walk(node))
    return len({id(child) for child in inner if isinstance(child, (ast.Import, ast.ImportFrom))})


def import_graph(modules: list[Module]) -> dict[str, set[str]]:
    """Return which module imports which when it is imported itself; imports for types and in functions do not count."""
    known = {module.name for module in modules}
    return {module.name: set(_imported(module, known)) - {module.name} for module in modules}


def _imported(module: Module, known: set[str]) -> Iterator[str]:
    for node in module.tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield from {inner if inner in known else node.module} & known
        elif isinstance(node, ast.Import):
            yield from {alias.name for alias in node.names} & known


def cyclic(graph: dict[str, set[str]]) -> int:
    """Count the modules that can reach themselves."""
    return sum(_reaches_itself(graph, start) for start in graph)


def _reaches_itself(graph: dict[str, set[str]], start: str) -> bool:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name == start:
            return True
        if name not in seen:
            seen.add(name)
            waiting.extend(graph[name])
    return False


def set_from_outside(modules: Iterable[Module]) -> int:
    """Count the assignments to attributes of objects other than ``self`` and ``cls``."""
    count = 0
    for node in nodes(modules, ast.Assign, ast.AnnAssign, ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]  # type: ignore[attr-defined]
        flat = [t for target in targets for t in (target.elts if isinstance(target, ast.Tuple) else [target])]
        for target in flat:
            if isinstance(target, ast.Attribute):
                count += not (isinstance(target.value, ast.Name) and target.value.id in {"self", "cls"})
    return count


def empty_lambdas(modules: Iterable[Module]) -> int:
    """Count the lambdas that only return a constant: callbacks that do nothing."""
    return sum(isinstance(node.body, ast.Constant) for node in nodes(modules, ast.Lambda))  # type: ignore[attr-defined]


def shared_class_names(modules: Iterable[Module]) -> list[str]:
    """Return the public class names that one subsystem has more than once."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for module in modules:
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                seen[module.subsystem][node.name] += 1
    return sorted(f"{subsystem}: {name}" for subsystem, names in seen.items() for name, n in names.items() if n > 1)


def shared_file_names(modules: Iterable[Module]) -> list[str]:
    """Return the names of files, ``__init__`` and ``__main__`` aside, that occur more than once."""
    names = Counter(module.path.name for module in modules if not module.path.name.startswith("__"))
    return sorted(name for name, number in names.items() if number > 1)


def long_files(modules: Iterable[Module]) -> list[str]:
    """Return the files with more lines than the house allows."""
    return [f"{module.path}: {module.lines} lines" for module in modules if module.lines > MAX_LINES]


def full_folders(modules: Iterable[Module]) -> list[str]:
    """Return the folders with more Python files than the house allows."""
    folders = Counter(module.path.parent for module in modules)
    return [f"{folder}: {number} files" for folder, number in sorted(folders.items()) if number > MAX_FILES]


def stories(checkout: Path) -> dict[str, int]:
    """Return how many files each story of ARCHITECTURE.md opens: the numbered lists below its story headings."""
    page = checkout / "ARCHITECTURE.md"
    found: dict[str, int] = {}
    heading = ""
    for line in page.read_text(encoding="utf-8").splitlines() if page.exists() else []:
        if line.startswith("#"):
            heading = line.lstrip("# ") if "story" in line.lower() else ""
        elif heading and re.match(r"\d+\. ", line):
            found[heading] = found.get(heading, 0) + len(set(re.findall(r"`([\w/]+\.py)`", line)))
    return found


def figures(checkout: Path) -> dict[str, str]:
    """Return every figure of a checkout by its title."""
    modules = modules_of(checkout)
    lines = sum(module.lines for module in modules)
    text = "\n".join(module.text for module in modules)
    lengths = function_lengths(modules)

    def per_thousand(pattern: str) -> str:
        return f"{1000 * len(re.findall(pattern, text)) / lines:.1f}"

    return {
        "files": f"{len(modules)}",
        "lines": f"{lines:,}",
        "longest file, lines": f"{max(module.lines for module in modules)}",
        f"files of more than {MAX_LINES} lines": f"{len(long_files(modules))}",
        "most Python files in a folder": f"{max(Counter(m.path.parent for m in modules).values())}",
        f"folders of more than {MAX_FILES} files": f"{len(full_folders(modules))}",
        "median function, lines": f"{statistics.median(lengths):.0f}",
        "longest function, lines": f"{max(lengths)}",
        "modules in import cycles": f"{cyclic(import_graph(modules))}",
        "imports inside functions": f"{imports_in_functions(modules)}",
        "attributes set from outside": f"{set_from_outside(modules)}",
        "lambdas that do nothing": f"{empty_lambdas(modules)}",
        "class names used twice in a subsystem": f"{len(shared_class_names(modules))}",
        "file names used twice": f"{len(shared_file_names(modules))}",
        "Any per 1,000 lines": per_thousand(r"\bAny\b"),
        "type: ignore per 1,000 lines": per_thousand(r"type: ignore"),
        "TODO or FIXME": f"{len(re.findall(r'TODO|FIXME', text))}",
        **{f"files of {title}": f"{number}" for title, number in stories(checkout).items()},
    }


def table(columns: dict[str, dict[str, str]]) -> str:
    """Return the figures of several checkouts side by side."""
    titles = list(dict.fromkeys(title for column in columns.values() for title in column))
    width = max(map(len, titles))
    rows = [f"{'':{width}}  " + "  ".join(f"{name[-16:]:>16}" for name in columns)]
    for title in titles:
        rows.append(f"{title:{width}}  " + "  ".join(f"{column.get(title, '-'):>16}" for column in columns.values()))
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--check", action="store_true", help="fail if a limit is exceeded")
    arguments = parser.parse_args()
    here = Path(__file__).resolve().parents[1]
    if not arguments.check:
        print(table({str(checkout): figures(checkout) for checkout in arguments.checkouts or [here]}))
        return 0
    modules = modules_of(here)
    exceeded = [*long_files(modules), *full_folders(modules)]
    for line in exceeded:
        print(f"{line}; the limits are {MAX_LINES} lines a file and {MAX_FILES} Python files a folder", file=sys.stderr)
    return 1 if exceeded else 0


if __name__ == "__main__":
    sys.exit(main())
