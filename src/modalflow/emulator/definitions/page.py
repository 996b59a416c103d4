"""The page docs/local-control-plane-options.md, generated from the table of fields.

Owns only the frame of the page. Run ``python -m modalflow.emulator.definitions.page``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Final, TypeVar

from modalflow.emulator.definitions.effects import Effect, Internal, Refused, WithoutEffect
from modalflow.emulator.definitions.field_table import FIELDS

Kind = TypeVar("Kind", bound=Effect)

_HEAD: Final = """\
# Options that the local control plane refuses or ignores

`make docs` generates this page from the table in the code. The table has a row for every field of the definitions that
Modal's SDK sends for functions, classes, images, apps, and for Dicts, Queues, Volumes, Secrets and mounts. Every field
that is not on this page has its effect.

If a function, an image or an app has a field that is newer than the table, the deployment succeeds. Its output names
the field, because it may have no effect.

## Without effect

These options are accepted. If a definition sets one, the deployment succeeds, and its output has the line below the
function. The function's log has the same line when a container starts. For an image, the line is in the log of the
build.

| option | fields | line |
|---|---|---|
"""

_REFUSED: Final = """
## Refused

These options are an error at deployment: `UnimplementedError`, with the text of the row. Sandboxes are refused as a
whole.

| fields | The local control plane does not have … |
|---|---|
"""

_INTERNAL: Final = """
## Set by the SDK

The SDK sets these fields by itself. No option of yours depends on them here.

| fields | reason |
|---|---|
"""


def page() -> str:
    """Return the page, in Markdown."""
    ignored = _grouped(WithoutEffect)
    return "".join(
        [
            _HEAD,
            *_sorted(f"| `{row.option}` | {fields} | {_line(row)} |\n" for row, fields in ignored),
            _REFUSED,
            *_sorted(f"| {fields} | {what} |\n" for what, fields in _refused().items()),
            _INTERNAL,
            *_sorted(f"| {fields} | {row.reason} |\n" for row, fields in _grouped(Internal)),
        ]
    )


def _line(row: WithoutEffect) -> str:
    usual = f" (not for {', '.join(row.usual)})" if row.usual else ""
    return row.line.format("…") + usual + (" (not in gVisor)" if row.has_effect_in_gvisor else "")


def _grouped(kind: type[Kind]) -> list[tuple[Kind, str]]:
    """Return each row of a kind once, with its fields."""
    fields: dict[Kind, list[str]] = {}
    for name, rows in FIELDS.items():
        for field, row in rows.items():
            if isinstance(row, kind):
                fields.setdefault(row, []).append(f"`{name}.{field}`")
    return [(row, ", ".join(names)) for row, names in fields.items()]


def _refused() -> dict[str, str]:
    """Return the fields by the missing feature: those of one feature may allow different values."""
    fields: dict[str, str] = {}
    for row, names in _grouped(Refused):
        fields[row.what] = f"{fields[row.what]}, {names}" if row.what in fields else names
    return fields


def _sorted(lines: Iterable[str]) -> list[str]:
    return sorted(lines, key=str.lower)


if __name__ == "__main__":
    sys.stdout.write(page())
