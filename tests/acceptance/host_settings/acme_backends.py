"""An operator's own backends, in a module beside the DAGs; each keeps its values below ACME_FOLDER."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow.configuration import conf
from airflow.providers.common.io.xcom.backend import XComObjectStorageBackend

try:
    from airflow.sdk.state import BaseStoreBackend
except ImportError:  # Airflow before 3.3.
    BaseStoreBackend = object  # type: ignore[assignment,misc]


class LabelledXCom(XComObjectStorageBackend):
    """Airflow's backend of an object storage, with a label on each value: another backend reads the label too."""

    @classmethod
    def store_value(cls, coordinate: Any, key: str, value: Any) -> Any:
        """Store a value, on Airflow 3.3 and newer."""
        return super().store_value(coordinate, key, {"acme": value})

    @staticmethod
    def serialize_value(value: Any, **where: Any) -> Any:
        """Store a value, on older versions."""
        return XComObjectStorageBackend.serialize_value({"acme": value}, **where)

    @staticmethod
    def deserialize_value(result: Any) -> Any:
        """Return a value; KeyError if another backend has stored it."""
        return XComObjectStorageBackend.deserialize_value(result)["acme"]


class FileState(BaseStoreBackend):
    """The state of tasks in files; Airflow's database has only their paths."""

    def serialize_task_state_store_to_ref(self, *, value: Any, key: str, scope: Any) -> str:
        """Write the value into a file, and return its path."""
        folder = Path(conf.get("acme", "state_folder"))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{scope.task_id}-{key}.json"
        path.write_text(json.dumps(value))
        return str(path)

    def deserialize_task_state_store_from_ref(self, stored: str) -> Any:
        """Return the value in the file of that path."""
        return json.loads(Path(stored).read_text())

    def get(self, scope: Any, key: str, *, session: Any = None) -> str | None:
        """Not used on a worker."""
        raise NotImplementedError

    def set(self, scope: Any, key: str, value: str, *, expires_at: datetime | None = None, session: Any = None) -> None:
        """Not used on a worker."""
        raise NotImplementedError

    def delete(self, scope: Any, key: str, *, session: Any = None) -> None:
        """Not used on a worker."""
        raise NotImplementedError

    def clear(self, scope: Any, *, all_map_indices: bool = False, session: Any = None) -> None:
        """Not used on a worker."""
        raise NotImplementedError

    async def aget(self, scope: Any, key: str, *, session: Any = None) -> str | None:
        """Not used on a worker."""
        raise NotImplementedError

    async def aset(
        self, scope: Any, key: str, value: str, *, expires_at: datetime | None = None, session: Any = None
    ) -> None:
        """Not used on a worker."""
        raise NotImplementedError

    async def adelete(self, scope: Any, key: str, *, session: Any = None) -> None:
        """Not used on a worker."""
        raise NotImplementedError

    async def aclear(self, scope: Any, *, all_map_indices: bool = False, session: Any = None) -> None:
        """Not used on a worker."""
        raise NotImplementedError
