"""The page docs/host-settings.md, generated from the table of Airflow's options.

Owns only the frame of the page. Options, places and reasons come from ``RULES``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Final

from modalflow.airflow_home.host_variables import VARIABLE_RULES
from modalflow.airflow_home.rules.rule import Place, Rule
from modalflow.airflow_home.rules.table import RULES

_HEAD: Final = """# Settings of the Airflow host

`make docs` generates this page from the table in the code.

A task on Modal has the settings of your Airflow host. Everything that you have set there holds in containers, unless a
row of the [tables](#tables) below gives a reason why not. This includes your own sections. You need no deployment: a
change counts for the next task after the scheduler's restart.

## How settings get to containers

1. When a scheduler starts, its executor collects the settings: from `airflow.cfg`, from variables, from commands
   (`_cmd`) and from the secrets backend (`_secret`). The values are those that Airflow itself has. A team's executor
   takes the team's values, and those for all teams for the rest.
2. The executor writes them to the logs Volume, once for each content. A workload carries only the name of that content.
3. A container reads them once, and starts Airflow with them. Other settings mean another Airflow: tasks of two
   schedulers with different settings never share one.

A value in `airflow.cfg` that is Airflow's default counts as not set, because Airflow writes some of its defaults into
a new file. In a variable it counts.

If a command or the secrets backend fails, or takes more than 30 seconds, tasks have the default of this one setting.
The scheduler's log has a warning with the setting and the reason, and the scheduler continues.

## Which value wins

If several places set an option, the first of these wins:

1. the few variables that only the worker knows, such as the folder of the logs
2. the task's `env`
3. the profile's `env`, then the Worker's `env`
4. `[modal_executor] worker_env`, and the variables that every workload carries
5. the variables of the container: its image and Secrets
6. the `airflow.cfg` of the image, if the image has an `AIRFLOW_HOME` of its own
7. **the settings of the Airflow host**
8. a worker's defaults for the [client of the Execution API](operations.md#many-tasks-at-once-and-the-api-server)
9. Airflow's defaults

To give tasks another value than the host has, set the variable in `worker_env`, or in a profile's `env`:

```ini
[modal_executor]
worker_env = {"AIRFLOW__METRICS__STATSD_HOST": "statsd.example.com"}
```

## Secrets

Settings that are secret and that tasks need travel encrypted. `modalflow deploy` makes a key for it, and only the
containers of your worker app have the private part. These settings are encrypted:

- rows with **yes, encrypted** in the tables
- options that Airflow or a provider declares as sensitive
- options of your own whose name is that of a secret: `…password`, `…token`, `…secret`, `…_key` and others
- any value that is a URL with a password or a private key

Settings that are secret and of no use to tasks never leave the host: rows with **never** in the tables.

Connections and Airflow variables are no settings. A task gets them from Airflow's API server, whatever the place where
you keep them, or from the secrets backend of workers.

## Paths, hosts and modules

The meaning of some values depends on the machine:

- **A path** such as `[email] html_content_template` is a path in the container. Put the file into your image.
- **A shared folder**, such as `[common.io] xcom_objectstorage_path = file:///srv/xcoms`, is another folder in each
  container, unless the profile mounts a bucket there. `modalflow doctor` and `modalflow deploy` warn about it.
- **A time zone**: `[core] default_timezone = system` travels as the name of the zone of your host. Your code in a
  container still has the zone UTC: set `TZ` in the profile's `env` to change that.
- **A host** must be within reach of containers. `localhost` is the container itself.
- **A class**, such as `[core] xcom_backend`, must be importable in the container: from a package of your image,
  or from a [plugin or module of the host](host-files.md).
- **A library** that a setting enables must be in your image. With `[sentry] sentry_on`, add `sentry-sdk` to the
  requirements of the deployment: without it, Airflow fails every task.

`modalflow doctor` reports settings that a container cannot use.

[Backends](backends.md) has the details for XComs, secrets, lineage, traces and metrics.

## Variables beside Airflow's options

Some variables configure a library that Airflow uses, and are no options of Airflow. Those with these beginnings hold in
containers as well. They travel encrypted if they can hold a secret.

{variables}

## Tables

"yes" means that your setting holds in containers. "host" means that it stays on the Airflow host because only the
host's processes read it. "worker" means that the worker decides it, or that each workload carries the value. "never" is
a secret of the host. In parentheses are the versions of Airflow that have an option. `*` is all options of the section
without a row of their own.

"""

_IN_CONTAINERS: Final[Mapping[Place, str]] = {
    Place.TRAVELS: "yes",
    Place.SEALED: "yes, encrypted",
    Place.HOST: "host",
    Place.WORKER: "worker",
    Place.NEVER: "never",
}


def page() -> str:
    """Return the whole page."""
    return "\n".join([_HEAD.rstrip("\n").replace("{variables}", _variables()), *_tables(), ""])


def _variables() -> str:
    rows = (f"| `{rule.beginning}*` | {rule.reason} |" for rule in VARIABLE_RULES)
    return "\n".join(("| variables | reason |", "|---|---|", *rows))


def _tables() -> Iterable[str]:
    by_section = sorted(RULES, key=lambda rule: rule.section)
    for section, rules in groupby(by_section, key=lambda rule: rule.section):
        yield f"\n### `[{section}]`\n"
        yield "| options | in containers | reason |"
        yield "|---|---|---|"
        groups: dict[tuple[Place, str], list[Rule]] = {}
        for rule in rules:
            groups.setdefault((rule.place, rule.reason), []).append(rule)
        for (place, reason), of_group in sorted(groups.items(), key=lambda group: list(Place).index(group[0][0])):
            options = ", ".join(_option(rule) for rule in of_group)
            yield f"| {options} | {_IN_CONTAINERS[place]} | {reason} |"


def _option(rule: Rule) -> str:
    versions = f"from {rule.since}" if rule.since else ""
    if rule.until:
        versions = f"only {rule.since}" if rule.since == rule.until else f"{versions} until {rule.until}".strip()
    if rule.until.startswith("2"):
        versions = "Airflow 2"
    return f"`{rule.option}` ({versions})" if versions else f"`{rule.option}`"


if __name__ == "__main__":
    sys.stdout.write(page())
