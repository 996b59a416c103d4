"""DAG bundles on a Volume, from the Airflow host's bundle to a task in a container, on the local control plane."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.configuration import conf

from modalflow.bundles.configured import VOLUME_BUNDLE
from modalflow.bundles.store import UnknownVersionError
from modalflow.bundles.volume import ModalVolumeDagBundle
from modalflow.errors import BundleError
from modalflow.protocol.messages import State
from modalflow.worker.environment import BUNDLE_LIST, BUNDLE_STORAGE
from tests.command_line import CommandLine
from tests.integration.world import Work, World, deployed_worker

pytestmark = pytest.mark.timeout(300)

APP = "ships"
BUNDLE = "shipped"

DAG = """
from airflow.sdk import dag, task
from helper import WHO

@task
def hello():
    print("hello from", WHO, "in", __file__)

@dag(dag_id="d", schedule=None)
def made():
    hello()

made()
"""


@pytest.fixture(scope="module")
def world(modalflow_cli: CommandLine) -> Iterator[World]:
    with deployed_worker(modalflow_cli, APP, "--max-containers", "1") as world:
        yield world


@pytest.fixture
def dags(tmp_path: Path) -> Path:
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "d.py").write_text(DAG)
    (folder / "helper.py").write_text("WHO = 'one'\n")
    return folder


@pytest.fixture
def bundle(
    world: World, dags: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., ModalVolumeDagBundle]:
    """Makes the bundle as Airflow makes it, in a component of the Airflow host."""
    for name, value in world.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AIRFLOW_CONN_MODAL_DEFAULT", "modal://")
    monkeypatch.setenv(BUNDLE_STORAGE, str(tmp_path / "airflow-bundles"))

    def made(version: str | None = None, **kwargs: Any) -> ModalVolumeDagBundle:
        return ModalVolumeDagBundle(name=BUNDLE, path=str(dags), app=APP, version=version, **kwargs)

    return made


def version_of(bundle: ModalVolumeDagBundle) -> str:
    version = bundle.get_current_version()
    return str(getattr(version, "version", version))


def run(world: World, dags: Path, version: str | None, name: str = BUNDLE) -> Work:
    bundles = [{"name": name, "classpath": VOLUME_BUNDLE, "kwargs": {"path": str(dags), "app": APP}}]
    return world.task("hello", bundle=name, version=version, env={BUNDLE_LIST: json.dumps(bundles)})


def test_a_task_runs_the_version_of_its_dag_run(
    world: World, dags: Path, bundle: Callable[..., ModalVolumeDagBundle]
) -> None:
    """In one warm container: the old version before and after an edit, the new one after it, and the newest where no
    version is asked for. Nothing but the bundle's own refresh happens between."""
    host = bundle()
    host.initialize()
    old = version_of(host)
    first = run(world, dags, old)
    assert first.ended().final_state == "success", first.log()
    (dags / "helper.py").write_text("WHO = 'two'\n")
    assert version_of(host) == old, "nothing has refreshed it yet"
    host.refresh()
    new = version_of(host)
    assert new != old
    works = [first, *(run(world, dags, version) for version in (old, new, None))]
    assert len({work.ended().container_id for work in works}) == 1
    said = [next(line for line in work.log().splitlines() if "hello from" in line) for work in works]
    assert ["one" in line for line in said] == [True, True, False, False], said
    assert all(version in line for line, version in zip(said, (old, old, new, new), strict=True))


def test_a_version_that_cannot_be_had_fails_the_task_with_the_reason(world: World, dags: Path) -> None:
    """Nothing of the task has run; its log says which version is not on which Volume, and what to do."""
    for version, name, expected in (
        ("0" * 64, BUNDLE, f"Volume {APP}-dags has no version 000"),
        (None, "never-shipped", "'never-shipped' is not on Volume"),
    ):
        work = run(world, dags, version, name)
        entry = work.ended()
        assert (entry.state, entry.cause) == (State.FAILED, "dags-unavailable")
        assert expected in (entry.reason or "") and expected in work.log()


def test_what_airflow_parses_is_the_version_that_it_believes_in(
    dags: Path, bundle: Callable[..., ModalVolumeDagBundle]
) -> None:
    """An edit reaches what is parsed at a refresh, together with the version, on every component of the host alike."""
    host, other = bundle(), bundle()
    host.initialize()
    (dags / "helper.py").write_text("WHO = 'edited'\n")
    (dags / "d.py").unlink()
    (dags / "new").mkdir()
    (dags / "new/e.py").write_text("")
    assert "one" in (host.path / "helper.py").read_text()
    old, where = version_of(host), host.path
    other.initialize()
    assert version_of(host) == old and version_of(other) != old
    host.refresh()
    assert version_of(host) == version_of(other) and host.path == where == other.path
    assert sorted(str(p.relative_to(where)) for p in where.rglob("*.py")) == ["helper.py", "new/e.py"]


def test_an_old_version_comes_back_on_the_airflow_host(dags: Path, bundle: Callable[..., ModalVolumeDagBundle]) -> None:
    """For callbacks, which the DAG processor runs, and for other executors: where Airflow's own clean-up looks."""
    host = bundle()
    host.initialize()
    old = version_of(host)
    (dags / "helper.py").write_text("WHO = 'two'\n")
    host.refresh()
    pinned = bundle(old)
    pinned.initialize()
    pinned.initialize()
    assert (pinned.path / "helper.py").read_text() == "WHO = 'one'\n" and version_of(pinned) == old
    assert pinned.path == host.base_dir / "versions" / old
    with pytest.raises(UnknownVersionError):
        bundle("0" * 64).initialize()
    with pytest.raises(ValueError, match="never changes"):
        pinned.refresh()


def test_what_cannot_be_shipped_leaves_airflow_with_the_old_version(
    dags: Path, bundle: Callable[..., ModalVolumeDagBundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refresh that fails says why, and changes neither what is parsed nor the version."""
    host = bundle()
    host.initialize()
    old = version_of(host)
    (dags / "helper.py").write_text("WHO = 'two'\n")
    (dags / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(BundleError, match="outside"):
        host.refresh()
    assert version_of(host) == old and "one" in (host.path / "helper.py").read_text()
    (dags / "passwd").unlink()
    host.refresh()
    assert version_of(host) != old


def test_a_container_ships_nothing(
    bundle: Callable[..., ModalVolumeDagBundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the Airflow host's folder is the source: what is in a container never becomes a version."""
    monkeypatch.setenv("MODALFLOW_APP", APP)
    with pytest.raises(BundleError, match="Airflow host"):
        bundle().initialize()


def test_the_usual_arguments_of_a_bundle_are_taken(bundle: Callable[..., ModalVolumeDagBundle]) -> None:
    """Those that Airflow's own bundles have, and `[core] dags_folder` where no path is given."""
    made = bundle(refresh_interval=7, view_url_template="https://code.example.com/{version}")
    assert made.refresh_interval == 7 and made.supports_versioning
    assert made.view_url_template() == "https://code.example.com/{version}"
    default = ModalVolumeDagBundle(name=BUNDLE)
    assert default._folder.path == Path(conf.get_mandatory_value("core", "dags_folder"))
