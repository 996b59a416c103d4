"""Sources of settings: Airflow's configuration, or environment variables without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class ConfigSource(Protocol):
    """A source of settings: Airflow's ``conf``, or an executor's team-aware ``self.conf``."""

    def get(self, section: str, key: str, *, fallback: Any = None) -> str | None: ...

    def getsection(self, section: str) -> Mapping[str, Any] | None: ...


@dataclass(frozen=True)
class Variables:
    """The options where Airflow is not installed: its environment variables alone."""

    env: Mapping[str, str]

    def get(self, section: str, key: str, *, fallback: Any = None) -> str | None:
        value: str | None = self.env.get(f"AIRFLOW__{section}__{key}".upper(), fallback)
        return value

    def getsection(self, section: str) -> Mapping[str, Any] | None:
        prefix = f"AIRFLOW__{section}__".upper()
        return {name.removeprefix(prefix).lower(): value for name, value in self.env.items() if name.startswith(prefix)}
