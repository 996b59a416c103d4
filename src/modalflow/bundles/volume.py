"""ModalVolumeDagBundle: a folder on the Airflow host, with versions shipped to a Modal Volume.

Airflow's interface to the store, for every component on the Airflow host. In containers the worker itself fetches
versions from the Volume, and sets their folders for Airflow (modalflow.worker.dag_bundles). Must stay cheap to import:
Airflow imports the classes of all bundles for every task.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.dag_processing.bundles.base import BaseDagBundle

from modalflow.airflow_compat.configuration import conf_with_providers, modal_hook, own_conf
from modalflow.airflow_compat.dag_bundles import bundle_version
from modalflow.bundles.manifest import Manifest
from modalflow.bundles.scan import Folder
from modalflow.errors import BundleError
from modalflow.names import APP_VARIABLE, Names
from modalflow.support.described import describe

if TYPE_CHECKING:
    from modalflow.bundles.store import Store


class ModalVolumeDagBundle(BaseDagBundle):
    """A versioned DAG bundle: a task runs the code that its DAG run was created with, on Modal too.

    ``path`` is a folder on the Airflow host, ``[core] dags_folder`` by default. Each refresh ships its content to the
    worker app's Volume as a version; only then does Airflow see it. If you do not give ``app``, ``environment`` or
    ``conn_id``, those of ``[modal_executor]`` are used.
    """

    supports_versioning = True

    def __init__(
        self, *, path: str | None = None, app: str = "", environment: str = "", conn_id: str = "", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._folder = Folder(Path(path or own_conf().get("core", "dags_folder")).expanduser())
        self._app, self._environment, self._conn_id = app, environment, conn_id
        # Airflow parses a copy: the folder itself may be newer than the version that Airflow knows.
        self._copy = Folder(self.base_dir / "current")
        self._shipped: Manifest | None = None

    @property
    def path(self) -> Path:
        """Return the folder of the version, or that of the newest version."""
        return self.versions_dir / self.version if self.version else self._copy.path

    def initialize(self) -> None:
        """Fetch the version from the Volume, or ship the newest one there."""
        with self._exclusive():
            if self.version:
                self._fetch(self.version)
            else:
                self._ship()
        super().initialize()

    def get_current_version(self) -> Any:
        """Return the version at ``path``, a hash of all its files."""
        if self.version:
            return bundle_version(self.version)
        manifest = self._shipped or self._copy.manifest()
        return bundle_version(manifest.version)

    def refresh(self) -> None:
        """Ship the present content of the folder; if that fails, the version stays unchanged."""
        if self.version:
            raise ValueError(f"A version of DAG bundle {self.name!r} never changes; only its newest one is refreshed.")
        with self._exclusive():
            self._ship()

    def _ship(self) -> None:
        if APP_VARIABLE in os.environ:
            raise BundleError(
                f"The newest version of DAG bundle {self.name!r} is on the Airflow host. This is a container of the "
                "worker, which only has the versions that its tasks need. Ship the bundle from the host."
            )
        from modalflow.bundles.shipping import with_manifest
        from modalflow.bundles.trees import update_tree

        def work(manifest: Manifest) -> int:
            if self._shipped is None or manifest.version != self._shipped.version:
                self._store().ship(self.name, manifest, self._folder.read)
            update_tree(self._copy, manifest, self._folder.read)
            return 0

        self._shipped, _ = with_manifest(self._folder, work)

    def _fetch(self, version: str) -> None:
        from modalflow.bundles.trees import write_tree

        if self.path.is_dir():
            return
        store = self._store()
        write_tree(self.path, store.manifest(self.name, version), lambda _, file: store.content(file))

    def _store(self) -> Store:
        from modalflow.bundles.store import open_store
        from modalflow.config.settings import Settings
        from modalflow.control_plane import connect

        settings = Settings.read(conf_with_providers("modal_executor"))
        control_plane = connect(
            conn_id=self._conn_id or settings.conn_id,
            environment=self._environment or settings.environment,
            hook=modal_hook,
        )
        return open_store(Names(self._app or settings.app_name), **control_plane.scope())

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold this machine's lock of the bundle, and raise Modal's errors as BundleError."""
        from modal import exception

        try:
            with self.lock():
                yield
        except (exception.Error, TimeoutError) as error:
            raise BundleError(
                f"DAG bundle {self.name!r} could not reach its Volume: {describe(error)}. The next refresh tries again."
            ) from error
