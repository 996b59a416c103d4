"""The page docs/configuration.md, generated from the tables in the code.

Owns only the frame of the page. Options, defaults, units and keys come from ``OPTIONS`` and ``KEYS``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from modalflow.config.settings import OPTIONS, SECTION
from modalflow.config.task_options import KEYS

_HEAD = f"""# Configuration

`make docs` generates this page from the tables in the code.

## `[{SECTION}]`

Set the options in `airflow.cfg` or through environment variables. To check your settings, run `modalflow doctor`. To
list them, run `airflow config list --section {SECTION} --include-descriptions --include-examples`. The
scheduler reads them once, at its start. If an option is unknown or has an invalid value, the scheduler stops with an
error about it.

| option | type | default | unit | meaning |
|---|---|---|---|---|
"""

_TEAMS = """
### Environment variables and teams

With `[core] multi_team` and `[core] executor = …;team1=modalflow.executor.modal_executor.ModalExecutor`, each team's
executor reads its own options. Put them into the section `[team1={section}]` of `airflow.cfg`. In a variable,
write the name of the team and three underscores. A team inherits nothing from `[{section}]`: a missing option
has its default. To separate two teams on Modal, give each its own `app_name` or `environment`.

| option | environment variable | for the team `team1` |
|---|---|---|
"""

_KEYS = """
## Options of a task: `executor_config={{"modal": {{…}}}}`

```python
@task(executor_config={{"modal": {{{all_keys}}}}})
def embed(batch): ...
```

`modalflow.modal_config(gpu="H100:2", …)` returns the same, and checks it when Airflow parses the DAG file.

All keys are optional. Each distinct set of keys (without `env`, `profile`, `submit_attempts`, growth and its limits)
is a separate container pool on Modal. `max_option_sets` limits their number. If a key is unknown or has an invalid
value, only this task fails. You find the reason in its log and in Airflow's event log. [Profiles](profiles.md) has the
rules, and [sizes](sizes.md) those of growth and `"auto"`.

| key | unit | example | meaning |
|---|---|---|---|
"""


def page() -> str:
    """Return the whole page."""
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
