"""The zygote that is there before the first input: it is the one that workloads use, also out of a memory snapshot."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from modalflow.names import PRELOAD_VARIABLE
from modalflow.protocol.messages import Kind
from modalflow.worker import environment
from modalflow.worker.zygote.client import ZygoteClient
from modalflow.worker.zygote.prestart import SNAPSHOT_VARIABLE, Prestart
from modalflow.worker.zygote.protocol import ForkRequest

#: Which settings Airflow reads while a zygote warms up, and what it imports.
SETTINGS_READ = """
import json, sys
from airflow.configuration import conf
read = []
original = type(conf).get
def get(self, section, key, *args, **kwargs):
    read.append(f"AIRFLOW__{section}__{key}".upper())
    return original(self, section, key, *args, **kwargs)
type(conf).get = get
from modalflow.worker.zygote import warmup
warmup.warm_up()
print("read: " + json.dumps(read))
"""


def test_what_every_executor_sends_is_not_read_by_a_zygote(tmp_path: Path) -> None:
    """What an executor sends with all its workloads makes no difference to a zygote, so that one which knows nothing of
    it yet is the right one."""
    run = subprocess.run(
        [sys.executable, "-c", SETTINGS_READ],
        env=os.environ | {"AIRFLOW_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    read = json.loads(run.stdout.rpartition("read: ")[2])
    assert "AIRFLOW__CORE__PARALLELISM" in read, "settings are looked up where this test looks"
    assert not set(read) & set(environment.READ_LIVE)


async def test_a_memory_snapshot_holds_airflow_and_nothing_of_the_container_it_was_taken_in(tmp_path: Path) -> None:
    """The snapshot waits until Airflow and what the profile preloads are imported; each container made of it then has
    an identity of its own, and imports nothing again."""
    imports = tmp_path / "imports"
    (tmp_path / "slow.py").write_text(f"import os; open({str(imports)!r}, 'a').write(f'{{os.getpid()}} ')")
    own = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "MODAL"))}
    preloaded = {PRELOAD_VARIABLE: '["no.such.module", "slow"]', "PYTHONPATH": str(tmp_path)}
    started = Prestart.start(own | preloaded | {"MODAL_TASK_ID": "ta-snapshotted", SNAPSHOT_VARIABLE: "1"})
    try:
        assert started.zygote is not None
        # At once: the import is over.
        assert started.zygote.wait_until_ready(0.001)
        client = ZygoteClient(started.env, airflow=True, started=started.zygote)
        try:
            pid = started.zygote.process.pid
            assert imports.read_text().split() == [str(pid)]
            names = [await hostname(client, started, container, tmp_path) for container in ("ta-one", "ta-two")]
            assert names == ["ta-one", "ta-two"]
            assert imports.read_text().split() == [str(pid)]
            assert started.zygote.is_alive
        finally:
            await client.close()
        assert not started.zygote.is_alive
    finally:
        shutil.rmtree(started.home)


async def hostname(client: ZygoteClient, started: Prestart, container: str, folder: Path) -> str:
    """What a task in a container would tell Airflow of where it is."""
    variables: Mapping[str, str] = {**os.environ, "MODAL_TASK_ID": container}
    env = environment.of_workload(variables, {}, home=started.home, folders=started.baked)
    told = folder / f"{container}.json"
    result = await client.fork(ForkRequest(container, Kind.PROBE, str(told), str(folder), env))
    assert result.return_code == 0
    return str(json.loads(told.read_text())["hostname"]["name"])


def test_a_zygote_that_does_not_get_ready_is_not_waited_for_for_ever() -> None:
    """A snapshot is taken without Airflow rather than not at all, and one that has ended is no reason to wait."""
    zygote = Prestart.start(dict(os.environ)).zygote
    assert zygote is not None
    try:
        assert not zygote.wait_until_ready(0.001)
        zygote.process.kill()
        assert not zygote.wait_until_ready(60.0)
    finally:
        zygote.control.close()
        zygote.process.kill()
        zygote.process.wait()
