"""One Airflow home in a container."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class AirflowHome:
    """A folder that Airflow can have as its home."""

    folder: str
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The host's settings that no file can express."""
