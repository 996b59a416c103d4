"""The names that a state folder has on disk: a later version must find what an earlier one wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalflow.emulator.apps import apps
from modalflow.emulator.control_plane.control_plane import ControlPlane
from modalflow.emulator.functions import functions
from modalflow.emulator.options import Options
from modalflow.emulator.queues.queues import Queue
from modalflow.emulator.services.dicts import Dict
from modalflow.emulator.services.secrets import Secret
from modalflow.emulator.state.records import Record
from modalflow.emulator.state.registry import StoredObject
from modalflow.emulator.volumes.tree import NodeKind
from modalflow.emulator.volumes.volume import Volume

#: What version 0.4.0 wrote. A name may be added here, and none may change without a migration (``journal_file``).
TABLES = """
    answers app_versions apps calls chunks classes definitions dict_entries dict_objects dict_uses environments
    functions image_cache image_names images inputs log_entries mount_names mounts outputs queue_deliveries queue_items
    queue_objects secret_objects volume_nodes volume_objects
"""
APP = """
    environment description state name app_id created_at deployed_at stopped_at stopped_by version production tags
    function_ids class_ids
"""
VERSION = "number function_ids class_ids tags staged deployed_at client_version deployment_tag commit_info copy_of"
FUNCTION = """
    tag object_id definition staged revision definition_id options serialized_params autoscaler fallbacks removed pinned
"""
FOLDERS = "blobs blocks buckets containers doors files images layers views"


def test_the_tables_and_folders_keep_their_names(tmp_path: Path) -> None:
    control_plane = ControlPlane(Options(state_dir=tmp_path))
    try:
        assert set(TABLES.split()) <= set(control_plane.state.journal.kinds())
        assert set(FOLDERS.split()) <= {path.name for path in tmp_path.iterdir()}
    finally:
        control_plane.release()


@pytest.mark.parametrize(
    ("record", "names"),
    [(apps._RECORD, APP), (apps._RECORD_OF_VERSION, VERSION), (functions._RECORD, FUNCTION)],
)
def test_the_fields_of_records_keep_their_names(record: Record[object], names: str) -> None:
    assert set(names.split()) <= set(record._fields)


@pytest.mark.parametrize(
    ("kind", "more"), [(Dict, ""), (Queue, "reserved"), (Volume, "version"), (Secret, "values last_used_at")]
)
def test_the_fields_of_objects_keep_their_names(kind: type[StoredObject], more: str) -> None:
    assert set(f"object_id name environment created_at expires_at {more}".split()) <= set(kind.RECORDED)


def test_the_kinds_of_nodes_keep_their_values() -> None:
    assert {kind.value for kind in NodeKind} >= {"file", "directory", "link"}
