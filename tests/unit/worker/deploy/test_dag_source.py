"""What a source of DAGs means for the app that is deployed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modalflow.bundles.configured import GIT_BUNDLE, LOCAL_BUNDLE, ConfiguredBundle, read_bundles
from modalflow.errors import ConfigError, DeployError
from modalflow.names import BUNDLES_ROOT, BUNDLES_VARIABLE, DAGS_MOUNT, SYNCED_VARIABLE
from modalflow.worker.deploy.dag_source import Bucket, BundleConfiguration, DagSource, SourceKind, without_provider


def test_a_container_is_told_where_its_bundles_are(tmp_path: Path) -> None:
    """In the image, on the Volume (by name: the folder changes with each version), or in the bucket."""
    bundles = {"a": tmp_path}
    local = DagSource(SourceKind.LOCAL, bundles).variables()
    assert json.loads(local[BUNDLES_VARIABLE]) == {"a": "/opt/modalflow/bundles/a"}
    assert json.loads(local[SYNCED_VARIABLE]) == []
    volume = DagSource(SourceKind.VOLUME, bundles).variables()
    assert (json.loads(volume[BUNDLES_VARIABLE]), json.loads(volume[SYNCED_VARIABLE])) == ({}, ["a"])
    bucket = DagSource(SourceKind.CLOUD_BUCKET, {"a": Path("x/y"), "b": Path()}, Bucket("dags"))
    assert json.loads(bucket.variables()[BUNDLES_VARIABLE]) == {
        "a": "/opt/modalflow/dags/x/y",
        "b": "/opt/modalflow/dags",
    }
    assert set(bucket.mounts()) == {DAGS_MOUNT} and not DagSource(SourceKind.LOCAL, bundles).mounts()


def test_a_bucket_is_mounted_read_only_below_its_prefix() -> None:
    """With the credentials in a Modal Secret, and an endpoint where it is not S3."""
    given = Bucket("dags", "/team/", "aws", "https://x.r2.cloudflarestorage.com").arguments()
    assert (given["bucket_name"], given["key_prefix"], given["read_only"]) == ("dags", "team/", True)
    assert given["bucket_endpoint_url"] == "https://x.r2.cloudflarestorage.com" and given["secret"] is not None
    assert Bucket("dags").arguments()["key_prefix"] is None


def test_what_contradicts_itself_is_refused(tmp_path: Path) -> None:
    """Each error names the option and the right form."""
    with pytest.raises(DeployError, match="needs the name"):
        DagSource(SourceKind.CLOUD_BUCKET, {}).check()
    with pytest.raises(DeployError, match="local reads no bucket"):
        DagSource(SourceKind.LOCAL, {}, Bucket("dags")).check()
    for folder in ("/absolute", "a/../../b"):
        with pytest.raises(DeployError, match="below its prefix"):
            DagSource(SourceKind.CLOUD_BUCKET, {"a": Path(folder)}, Bucket("dags")).check()
    with pytest.raises(DeployError, match="--dags-bundle a=FOLDER"):
        DagSource(SourceKind.LOCAL, {"a": tmp_path / "gone"}).check()
    DagSource(SourceKind.VOLUME, {"a": tmp_path}).check()


def test_bundles_whose_provider_the_image_lacks_are_found() -> None:
    """By the package that has their class, whose name is a part of the module's."""
    bundles = [
        ConfiguredBundle("git", "airflow.providers.git.bundles.git.GitDagBundle"),
        ConfiguredBundle("s3", "airflow.providers.amazon.aws.bundles.s3.S3DagBundle"),
        ConfiguredBundle("sql", "airflow.providers.common.sql.bundles.x.X"),
        ConfiguredBundle("own", "my.bundles.Mine"),
    ]
    packages = {"apache-airflow-providers-git", "apache-airflow-providers-common-sql"}
    assert without_provider(bundles, packages) == {"s3": "apache-airflow-providers-amazon"}


def test_local_bundles_are_found_with_their_folders(tmp_path: Path) -> None:
    """A bundle's own path counts, else the DAGs folder; bundles of other kinds, and folders that are not there, are not
    deployed. In a bucket each has the folder of its name."""
    listed = [
        {"name": "own", "classpath": LOCAL_BUNDLE, "kwargs": {"path": str(tmp_path)}},
        {"name": "default", "classpath": LOCAL_BUNDLE, "kwargs": {}},
        {"name": "git", "classpath": GIT_BUNDLE, "kwargs": {}},
        {"name": "gone", "classpath": LOCAL_BUNDLE, "kwargs": {"path": str(tmp_path / "gone")}},
    ]
    found = BundleConfiguration(tuple(read_bundles(json.dumps(listed))), str(tmp_path / ".."))
    told: list[str] = []
    source = found.source(SourceKind.LOCAL, None, None, told.append)
    assert source.bundles == {"own": tmp_path, "default": tmp_path / ".."} and source.needs_git
    assert len(told) == 1 and "'gone'" in told[0] and str(tmp_path / "gone") in told[0]
    in_bucket = found.source(SourceKind.CLOUD_BUCKET, None, Bucket("dags"), told.append)
    assert in_bucket.bundles == {"own": Path("own"), "default": Path("default"), "gone": Path("gone")}


@pytest.mark.parametrize("listed", ["[", '{"name": "x"}', '[{"classpath": "x"}]'])
def test_a_malformed_bundle_list_names_the_setting(listed: str) -> None:
    """The error says which setting is wrong and what was expected."""
    with pytest.raises(ConfigError, match=r"\[dag_processor\] dag_bundle_config_list"):
        read_bundles(listed)


@pytest.mark.parametrize("name", ["b" * 300, "任务" * 125, "team/dags", "/etc", "../up", ".."])
def test_a_bundle_of_any_name_has_a_folder_below_modalflows(tmp_path: Path, name: str) -> None:
    """Names that are paths lead nowhere else, and long ones are names of files."""
    folder = Path(DagSource(SourceKind.LOCAL, {name: tmp_path}).folders()[name])
    assert folder.parent == Path(BUNDLES_ROOT) and len(folder.name.encode()) <= 255 and folder.name != ".."


def test_a_folder_without_dag_files_is_named(tmp_path: Path) -> None:
    """Airflow's tasks would wait for files that no container has, until the next deployment."""
    bundles = {"a": tmp_path}
    (tmp_path / "notes.md").touch()
    assert DagSource(SourceKind.LOCAL, bundles).without_files() == [
        f"DAG bundle 'a' has no DAG file in {tmp_path}. After you write one, deploy again."
    ]
    assert "modalflow sync" in DagSource(SourceKind.VOLUME, bundles).without_files()[0]
    assert not DagSource(SourceKind.CLOUD_BUCKET, bundles, Bucket("dags")).without_files()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "dag.py").touch()
    assert not DagSource(SourceKind.LOCAL, bundles).without_files()


def test_dag_files_behind_a_link_are_found(tmp_path: Path) -> None:
    """As git-sync lays them out: the folder is a link to one of a commit. A circle of links ends."""
    (tmp_path / "commits" / "1" / "dags").mkdir(parents=True)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "repo").symlink_to(tmp_path / "commits" / "1")
    (tmp_path / "commits" / "1" / "back").symlink_to(bundle)
    source = DagSource(SourceKind.LOCAL, {"a": bundle})
    assert source.without_files()
    (tmp_path / "commits" / "1" / "dags" / "dag.py").touch()
    assert not source.without_files()
