"""Options of Airflow with the names of Python classes or functions, or with a need for a package, for containers.

Reads texts alone, and imports nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from modalflow.support.text import from_json

#: The options with one dotted path: (section, option).
CLASS_OPTIONS = (
    ("core", "xcom_backend"),
    ("core", "might_contain_dag_callable"),
    ("workers", "secrets_backend"),
    ("workers", "state_store_backend"),
    ("secrets", "backend"),
    ("logging", "logging_config_class"),
    ("logging", "log_formatter_class"),
    ("logging", "secret_mask_adapter"),
    ("metrics", "statsd_custom_client_path"),
    ("metrics", "stat_name_handler"),
    ("email", "email_backend"),
    ("lineage", "backend"),
    ("sentry", "before_send"),
)
#: The options with a list of dotted paths, separated by semicolons.
LIST_OPTIONS = (("openlineage", "extractors"), ("openlineage", "custom_run_facets"))
#: The option with Airflow's coordinators for tasks in other languages, by key, each with a `classpath`.
COORDINATORS = ("sdk", "coordinators")
#: The option whose `type` is a class, if it has a dot.
TRANSPORT = ("openlineage", "transport")

#: Every option with classes.
NAMING_OPTIONS = (*CLASS_OPTIONS, *LIST_OPTIONS, COORDINATORS, TRANSPORT)

#: Options with a need for a package outside of Airflow's own requirements, if they are set and not false.
_NEEDED = {
    ("sentry", "sentry_on"): "sentry-sdk",
    ("metrics", "statsd_on"): "statsd",
    ("metrics", "statsd_datadog_enabled"): "datadog",
    ("common.io", "xcom_objectstorage_path"): "apache-airflow-providers-common-io",
    ("openlineage", "transport"): "apache-airflow-providers-openlineage",
    ("openlineage", "config_path"): "apache-airflow-providers-openlineage",
}
_FALSE = frozenset({"", "f", "false", "0"})

_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")


def classes_of(section: str, option: str, value: str) -> list[str]:
    """Return the dotted paths in an option's value; none for other options, and for a malformed value."""
    key = (section, option)
    found: Iterable[str] = ()
    if key in CLASS_OPTIONS:
        found = [value]
    elif key in LIST_OPTIONS:
        found = value.split(";")
    elif key == COORDINATORS:
        found = [path for path in coordinators(value).values() if path]
    elif key == TRANSPORT:
        found = _transport(value)
    return [path for each in found if _DOTTED.fullmatch(path := each.strip())]


def package_of(section: str, option: str, value: str) -> str:
    """Return the package for an option with this value; empty if Airflow's own are enough."""
    return "" if value.strip().lower() in _FALSE else _NEEDED.get((section, option), "")


def coordinators(value: str) -> dict[str, str]:
    """Return the coordinators of `[sdk] coordinators`: key → class. Empty if the text is malformed."""
    try:
        read = from_json(value)
    except ValueError:
        return {}
    if not isinstance(read, dict):
        return {}
    return {
        str(key): str(entry.get("classpath") or "") if isinstance(entry, dict) else "" for key, entry in read.items()
    }


def _transport(value: str) -> Iterator[str]:
    try:
        read = from_json(value)
    except ValueError:
        return
    if isinstance(read, dict) and isinstance(read.get("type"), str):
        yield read["type"]
