"""Print the figure and the limit of each rule of the style sheet.

python -m scripts.prose                     the table; exits with 1 if a figure exceeds its limit
python -m scripts.prose --list              the same, with the worst places
python -m scripts.prose --list docs/logs.md src/modalflow/cli      the same, with every place in these files
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from scripts.prose.limits import CLASSES, LIMITS, LONG_LINES
from scripts.prose.passages import Passage
from scripts.prose.rules import RULES, Count, Hit, long_lines
from scripts.prose.texts import pages, passages

ROOT = Path(__file__).parents[2]
LISTED = 15

Counts = dict[str, dict[str, Count]]


def count(found: Iterable[tuple[str, Passage]]) -> Counts:
    """Return the counts by class and rule."""
    counts: Counts = {name: {rule.name: Count(rule) for rule in RULES} for name in CLASSES}
    for name, passage in found:
        for counted in counts.get(name, {}).values():
            counted.add(passage)
    return counts


def table(counts: Counts) -> Iterable[str]:
    """Return the lines of the table: one for each rule, with the figure and limit of each class."""
    yield f"{'':25} {'':17}" + "".join(f"{name:>20}" for name in counts)
    for rule in RULES:
        cells = (_cell(found[rule.name], LIMITS[name].get(rule.name)) for name, found in counts.items())
        yield f"{rule.name:25} {rule.unit:17}" + "".join(f"{cell:>20}" for cell in cells)


def _cell(counted: Count, limit: float | None) -> str:
    if limit is None:
        return "-"
    sign = "≥" if counted.rule.minimum else "≤"
    return f"{counted.figure:.1f} {sign} {limit:g} {'ok  ' if counted.passes(limit) else 'FAIL'}"


def exceeded(counts: Counts) -> list[str]:
    """Return the rules and classes whose figures exceed their limits."""
    return [
        f"{rule} in {name}"
        for name, limits in LIMITS.items()
        for rule, limit in limits.items()
        if not counts[name][rule].passes(limit)
    ]


def _print_hits(title: str, hits: list[Hit], most: int | None) -> None:
    """Print places grouped by passage, the worst passage first."""
    by_passage: dict[Passage, list[Hit]] = {}
    for hit in hits:
        by_passage.setdefault(hit.passage, []).append(hit)
    worst = sorted(by_passage.items(), key=lambda item: -sum(hit.weight for hit in item[1]))
    if worst:
        print(f"\n{title}: {len(hits)}")
    for passage, found in worst[:most]:
        named = ", ".join(hit.found for hit in found)
        print(f"{passage.path}:{passage.line}: [{named[:60]}] {passage.text[:200]}")


def _print_list(counts: Counts, long: list[Hit], prefixes: list[str]) -> None:
    """Print the worst places, or every place in the files with one of these prefixes."""

    def chosen(hits: list[Hit]) -> list[Hit]:
        return [hit for hit in hits if not prefixes or hit.passage.path.startswith(tuple(prefixes))]

    most = None if prefixes else LISTED
    for name, found in counts.items():
        for rule, counted in found.items():
            if not counted.rule.minimum and rule in LIMITS[name]:
                _print_hits(f"{rule}, in {name}", chosen(counted.hits), most)
    _print_hits("lines over 120 characters", chosen(long), most)


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Count, print and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.prose", description=__doc__.partition("\n")[0])
    parser.add_argument("--list", nargs="*", metavar="PATH", help="list the worst places, or all of some files")
    options = parser.parse_args(arguments)
    counts = count(passages(root))
    long = [hit for page in pages(root) for hit in long_lines(page.path, page.text)]
    for line in table(counts):
        print(line)
    print(f"{'lines over 120 characters':43}{f'{len(long)} ≤ {LONG_LINES}':>20}")
    if options.list is not None:
        _print_list(counts, long, options.list)
    over = exceeded(counts) + (["lines over 120 characters"] if len(long) > LONG_LINES else [])
    if over:
        print("\nOver the limit: " + "; ".join(over) + ". `make prose LIST=` names the places.", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
