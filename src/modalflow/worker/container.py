"""What exists once for each container: its identity, its Modal objects, its zygotes, its log publisher, its usage."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import modal

from modalflow.bundles.store import open_store
from modalflow.bundles.trees import Trees
from modalflow.config.mounts import hidden
from modalflow.names import (
    API_URL_VARIABLE,
    APP_VARIABLE,
    DEFAULT_APP,
    OWN_FOLDER,
    PROFILE_ENV_VARIABLE,
    PROFILE_VARIABLE,
    RELAYED_URL_VARIABLE,
    SYNCED_VARIABLE,
    Names,
)
from modalflow.protocol.messages import Kind, Submission
from modalflow.relay.container.execution_api import ExecutionApi
from modalflow.worker import environment
from modalflow.worker.airflow_home.airflow_homes import AirflowHomes
from modalflow.worker.dag_bundles import DagBundles, bundles_of
from modalflow.worker.hostname import container_id
from modalflow.worker.ledger import Ledger
from modalflow.worker.logs.log_publisher import LogPublisher
from modalflow.worker.usage.usage_recorder import UsageRecorder, age_of_this_process
from modalflow.worker.zygote import prestart
from modalflow.worker.zygote.client import ZygoteClient
from modalflow.worker.zygote.zygotes import Zygotes


@dataclass
class Container:
    """The container of this process."""

    id: str
    ledger: Ledger
    log_publisher: LogPublisher
    usage: UsageRecorder
    log_root: Path
    home: str
    """A folder that only this container uses: Airflow's home if no executor has published one."""
    airflow_homes: AirflowHomes
    dag_bundles: DagBundles
    execution_api: ExecutionApi
    variables: Mapping[str, str]
    """The container's own environment variables."""
    _workloads: Zygotes
    profile: Mapping[str, Any] = field(default_factory=dict)
    """What its profile grants, as in ``Submission.resources``, and the profile's name as ``profile``."""
    profile_env: Mapping[str, str] = field(default_factory=dict)
    """The variables that the profile or the deployment set."""
    problem: str = ""
    """The reason why nothing can run here; empty if there is none."""
    _commands: ZygoteClient | None = None

    @classmethod
    def of_this_process(cls) -> Container:
        """Return the container that has this process as its main process. Makes no remote call."""
        names = Names(os.environ.get(APP_VARIABLE, DEFAULT_APP))
        volume = modal.Volume.from_name(names.logs)
        entries = modal.Dict.from_name(names.ledger)
        events = modal.Queue.from_name(names.events)
        started = prestart.pop()
        usage = UsageRecorder(Path(started.log_root), container_id(), age=_age(), variables=os.environ)
        return cls(
            id=container_id(),
            ledger=Ledger(entries, events),
            log_publisher=LogPublisher(volume.commit.aio, before=usage.write_running),
            usage=usage,
            log_root=Path(started.log_root),
            home=started.home,
            airflow_homes=started.airflow_homes,
            dag_bundles=DagBundles(
                open_store(names),
                Trees(Path(started.home, "dags")),
                started.baked,
                frozenset(json.loads(os.environ.get(SYNCED_VARIABLE, "[]"))),
            ),
            execution_api=ExecutionApi(names, container_id()),
            variables=dict(os.environ),
            profile=json.loads(os.environ.get(PROFILE_VARIABLE, "{}")),
            profile_env={
                name: os.environ.get(name, "") for name in json.loads(os.environ.get(PROFILE_ENV_VARIABLE, "[]"))
            },
            problem=hidden(os.path.realpath(OWN_FOLDER), OWN_FOLDER),
            _workloads=Zygotes(dict(os.environ), started),
        )

    @asynccontextmanager
    async def environment_for(self, submission: Submission) -> AsyncIterator[dict[str, str]]:
        """Yield the complete environment for a submission; the DAG files that it names exist within the context.

        Raises BundleError if they cannot be fetched, and HomeError if the host's configuration cannot be.
        """
        submitted = environment.submitted(self.profile_env, submission.env, submission.own_env)
        if submission.relay:
            submitted[RELAYED_URL_VARIABLE] = submitted.get(API_URL_VARIABLE, "")
            submitted[API_URL_VARIABLE] = await self.execution_api.url(
                submission.relay, tunnel=submission.relay_transport == "tunnel"
            )
        if submission.kind is Kind.COMMAND:
            yield environment.of_command(self.variables, submitted)
            return
        airflow = await self.airflow_homes.home_for(submission.home)
        listed = submitted.get(environment.BUNDLE_LIST, self.variables.get(environment.BUNDLE_LIST))
        bundles = environment.classes_of_bundles(listed)
        if submission.kind is Kind.PROBE:
            requested = await self.dag_bundles.newest(bundles)
        else:
            requested = bundles_of(submission.workload)
        async with self.dag_bundles.folders_for(requested, bundles) as folders:
            # The bundles of examples are never in the configuration: Airflow adds them if they are enabled.
            examples = any(each.name not in (bundles or folders) for each in requested)
            yield environment.of_workload(
                self.variables,
                submitted,
                home=self.home,
                folders=folders,
                examples=examples,
                log_root=str(self.log_root),
                airflow=airflow,
            )

    def granted(self, submission: Submission) -> dict[str, Any]:
        """Return what a submission is granted here: the keys of ``Submission.resources``, and ``profile``."""
        return {"profile": submission.profile, **self.profile, **submission.resources}

    async def zygote_for(self, kind: Kind, env: Mapping[str, str]) -> ZygoteClient:
        """Return the zygote for a process: one for all commands, several for workloads.

        Raises ZygoteEndedError if it cannot be started.
        """
        if kind is not Kind.COMMAND:
            return await self._workloads.zygote_for(env)
        if self._commands is None:
            self._commands = ZygoteClient(self.variables, airflow=False)
        return self._commands


def _age() -> float:
    """Return the age of this container in seconds.

    A container restored from a snapshot has the processes of another container. Their age says nothing, and it was
    restored a moment ago.
    """
    return 0.0 if os.environ.get(prestart.SNAPSHOT_VARIABLE) == "1" else age_of_this_process()
