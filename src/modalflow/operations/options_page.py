"""The page docs/configuration.md, written from the tables that the code reads: ``python -m … > docs/configuration.md``.

Owns its words only; every option, default, unit and key is config.OPTIONS' and resources.KEYS'.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from modalflow.config.settings import OPTIONS, SECTION
from modalflow.config.task_options import KEYS

_HEAD = f"""# Configuration

This page is generated: `make docs` writes it from the tables that the code itself reads.

## `[{SECTION}]`

Set them in `airflow.cfg`, or each by its environment variable. `airflow config list --section {SECTION}
--include-descriptions --include-examples` shows them with what is set; `modalflow doctor` checks them. The scheduler
reads them once, at its start, and an option that is unknown or has an impossible value stops it with a message that
names the option.

| option | type | default | unit | |
|---|---|---|---|---|
"""

_TEAMS = """
### By environment variable, and for one team

With `[core] multi_team` and `[core] executor = …;team1=modalflow.executor.modal_executor.ModalExecutor` each team's
executor reads its own: section `[team1={section}]` of `airflow.cfg`, or the variable with the team's name and three
underscores. A team inherits nothing from `[{section}]`: what is not set for it has its default. Two teams that are to
be apart on Modal need an `app_name` (or an `environment`) each.

| option | environment variable | for the team `team1` |
|---|---|---|
"""

_KEYS = """
## Per task: `executor_config={{"modal": {{…}}}}`

```python
@task(executor_config={{"modal": {{{all_keys}}}}})
def embed(batch): ...
```

`modalflow.modal_config(gpu="H100:2", …)` returns the same, checked while the DAG file is parsed.

All keys are optional. Each distinct set of them, `env`, `profile` and `submit_attempts` aside, is a container pool of
its own on Modal, and `max_option_sets` bounds how many. A key that is unknown or has an impossible value fails that one
task, with the reason in its log and in Airflow's event log. [What profiles are](profiles.md) is a page of its own.

| key | unit | example | |
|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    return "".join([_HEAD, *_options(), _TEAMS.format(section=SECTION), *_variables(), *_keys()])


def _options() -> Iterable[str]:
    for option in OPTIONS:
        default = f"`{option.default}`" if option.default else "(empty)"
        text = f"{option.description} Example: `{option.name} = {option.example}`"
        yield _row(f"`{option.name}`", option.type, default, option.unit, text)


def _variables() -> Iterable[str]:
    for option in OPTIONS:
        yield _row(f"`{option.name}`", f"`{option.variable()}`", f"`{option.variable('team1')}`")


def _keys() -> Iterable[str]:
    shown = ("gpu", "memory", "timeout", "env")
    yield _KEYS.format(all_keys=", ".join(f'"{name}": {KEYS[name].example}' for name in shown))
    for name, key in KEYS.items():
        yield _row(f"`{name}`", key.unit, f"`{key.example}`", key.description)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    sys.stdout.write(page())
