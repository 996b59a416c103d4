"""What exists once per container: its identity, its handles on Modal, its zygotes, its log commits and its accounts."""

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
    APP_VARIABLE,
    DEFAULT_APP,
    OWN_FOLDER,
    PROFILE_ENV_VARIABLE,
    PROFILE_VARIABLE,
    SYNCED_VARIABLE,
    Names,
)
from modalflow.protocol.messages import Kind, Submission
from modalflow.worker import environment
from modalflow.worker.dag_bundles import Dags, wanted_by
from modalflow.worker.hostname import container_id
from modalflow.worker.ledger import Report
from modalflow.worker.logs.commits import Commits
from modalflow.worker.usage import Accounts, age_of_this_process
from modalflow.worker.zygote import prestart
from modalflow.worker.zygote.client import Nursery

#: Zygotes with different Airflow settings that are kept. Each holds Airflow in memory, about 130 MB.
_KEPT_ZYGOTES = 2


@dataclass
class Container:
    """The container of this process."""

    id: str
    report: Report
    commits: Commits
    accounts: Accounts
    log_root: Path
    home: str
    """A folder that only this container uses: Airflow's home."""
    dags: Dags
    variables: Mapping[str, str]
    """The container's own environment variables."""
    profile: Mapping[str, Any] = field(default_factory=dict)
    """What its profile grants, as in ``Submission.resources``, and the name of it as ``profile``."""
    profile_env: Mapping[str, str] = field(default_factory=dict)
    """Those of the variables that the profile or the deployment set."""
    problem: str = ""
    """Why nothing can run here, whatever it is."""
    _commands: Nursery | None = None
    _workloads: dict[tuple[tuple[str, str], ...], Nursery] = field(default_factory=dict)

    @classmethod
    def here(cls) -> Container:
        """The container that this process is the main process of. Makes no remote call."""
        names = Names(os.environ.get(APP_VARIABLE, DEFAULT_APP))
        volume = modal.Volume.from_name(names.logs)
        ledger = modal.Dict.from_name(names.ledger)
        events = modal.Queue.from_name(names.events)
        begun = prestart.take()
        workloads = {}
        if begun.zygote is not None:
            nursery = Nursery(begun.env, airflow=True, started=begun.zygote)
            workloads[environment.read_at_import(begun.env)] = nursery
        return cls(
            id=container_id(),
            report=Report(ledger, events),
            commits=Commits(volume.commit.aio),
            accounts=Accounts(Path(begun.log_root), container_id(), age=_age()),
            log_root=Path(begun.log_root),
            home=begun.home,
            dags=Dags(
                open_store(names),
                Trees(Path(begun.home, "dags")),
                begun.baked,
                frozenset(json.loads(os.environ.get(SYNCED_VARIABLE, "[]"))),
            ),
            variables=dict(os.environ),
            profile=json.loads(os.environ.get(PROFILE_VARIABLE, "{}")),
            profile_env={
                name: os.environ.get(name, "") for name in json.loads(os.environ.get(PROFILE_ENV_VARIABLE, "[]"))
            },
            problem=hidden(os.path.realpath(OWN_FOLDER), OWN_FOLDER),
            _workloads=workloads,
        )

    @asynccontextmanager
    async def env_of(self, submission: Submission) -> AsyncIterator[dict[str, str]]:
        """The complete environment of what a submission runs; the DAG files that it names stay for as long.

        Raises BundleError where these cannot be had.
        """
        submitted = environment.submitted(self.profile_env, submission.env, submission.own_env)
        if submission.kind is Kind.COMMAND:
            yield environment.of_command(self.variables, submitted)
            return
        listed = submitted.get(environment.BUNDLE_LIST, self.variables.get(environment.BUNDLE_LIST))
        bundles = environment.classes_of_bundles(listed)
        if submission.kind is Kind.PROBE:
            wanted = await self.dags.newest(bundles)
        else:
            wanted = wanted_by(submission.workload)
        async with self.dags.folders_for(wanted, bundles) as folders:
            # Nobody configures the bundles of examples: Airflow adds them itself, where they are wanted.
            examples = any(each.name not in (bundles or folders) for each in wanted)
            yield environment.of_workload(
                self.variables,
                submitted,
                home=self.home,
                folders=folders,
                examples=examples,
                log_root=str(self.log_root),
            )

    def granted(self, submission: Submission) -> dict[str, Any]:
        """What a submission is granted here: the keys of ``Submission.resources``, and ``profile``."""
        return {"profile": submission.profile, **self.profile, **submission.resources}

    async def nursery_for(self, kind: Kind, env: Mapping[str, str]) -> Nursery:
        """The zygote that can run this: one for all commands, one per set of settings that Airflow reads at import."""
        if kind is Kind.COMMAND:
            if self._commands is None:
                self._commands = Nursery(self.variables, airflow=False)
            return self._commands
        key = environment.read_at_import(env)
        nursery = self._workloads.pop(key, None)
        if nursery is None:
            nursery = Nursery(environment.of_zygote(self.variables, env), airflow=True)
        self._workloads[key] = nursery  # The last is the most recently used.
        await self._drop_old_zygotes()
        return nursery

    async def _drop_old_zygotes(self) -> None:
        for key, nursery in list(self._workloads.items())[:-1]:
            if len(self._workloads) <= _KEPT_ZYGOTES:
                return
            if not nursery.is_busy:
                del self._workloads[key]
                await nursery.close()


def _age() -> float:
    """For how long this container has been there. One made of a snapshot has its processes from another; they cannot
    tell since when they are here, which was a moment ago."""
    return 0.0 if os.environ.get(prestart.SNAPSHOT_VARIABLE) == "1" else age_of_this_process()
