"""Publishes the configuration of this Airflow host, before the first submission and whenever containers need it anew.

No workload is submitted before it is published: a task must not run with other settings. The snapshot is named by its
content (``airflow_home``), and a submission only carries the name.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Final

from modalflow.airflow_home.host_home import HostHome
from modalflow.airflow_home.snapshot import Settings
from modalflow.airflow_home.store import RENEWED_AFTER
from modalflow.errors import HomeError
from modalflow.executor.modal_api.modal_api import ModalApi
from modalflow.executor.reporting.loggers import logger
from modalflow.names import API_CLIENT_OPTIONS, MASKING_OPTIONS, airflow_variable
from modalflow.protocol.messages import Deployment, Submission
from modalflow.support.described import describe, words_of

log = logger(__name__)

#: A worker reads these as variables alone: it has defaults of its own, or decides by them where logs go. Masking is the
#: host's alone: an image's variables come above published settings, and must not show what the host hides.
_VARIABLES_ALONE: Final = frozenset(
    {
        *(airflow_variable(section, option) for section, option in (*API_CLIENT_OPTIONS, *MASKING_OPTIONS)),
        airflow_variable("logging", "logging_config_class"),
    }
)


class HomePublisher:
    """The published configuration of one executor's host. Without a ``home``, workloads get none."""

    def __init__(self, home: HostHome | None, team: str, given: Iterable[str] = ()) -> None:
        """``given`` are the names of the variables that the user gives all workloads."""
        self._home = home
        self._team = team
        self._given = frozenset(given)
        self._sealed = {} if home is None else _variables(home.secret)
        self._plain = {} if home is None else _without(_variables(home.settings), _VARIABLES_ALONE)
        self.id = ""
        """The id of the published snapshot; empty if there is none."""
        self._key: str | None = None
        """Its public key; None if nothing is published."""
        self._published_at = 0.0
        """In seconds since the epoch: files on the Volume also get older while this machine sleeps."""
        self._prunes = False

    async def publish(self, api: ModalApi, deployment: Deployment | None) -> None:
        """Publish, unless the same was published a short time ago; raise HomeError if that fails."""
        key = "" if deployment is None else deployment.home_key
        if self._home is None or (key == self._key and time.time() - self._published_at < RENEWED_AFTER):
            return
        try:
            snapshot = self._home.snapshot(key)
            await api.publish_home(snapshot, self._home.contents, self._team)
        except Exception as error:
            # Anything: the SDK's upload passes on the errors of its own HTTP client.
            raise HomeError(
                f"The configuration of this Airflow host could not be written to Volume {api.logs.name}: "
                f"{words_of(error)}"
            ) from error
        if key != self._key:
            self._warn_of_left_out(key)
        self.id, self._key, self._published_at, self._prunes = snapshot.id, key, time.time(), True

    def without_stored(self, submission: Submission) -> dict[str, str]:
        """Return the variables of a workload without those that its home has, with the same values.

        A worker from before Airflow homes has no key, and gets all of them. The user's own variables stay: they
        override the image's, as a home does not.
        """
        if not (self.id and self._key):
            return dict(submission.env)
        own = {*self._given, *submission.own_env}
        return {
            name: value
            for name, value in submission.env.items()
            if self._sealed.get(name) != value and (self._plain.get(name) != value or name in own)
        }

    async def keep_up(self, api: ModalApi, deployment: Deployment | None) -> None:
        """Publish again if the deployment or the time requires it, and remove old snapshots. No failure stops work."""
        try:
            await self.publish(api, deployment)
            if self._prunes:
                await api.prune_homes()
                self._prunes = False
        except Exception as error:  # noqa: BLE001  As above.
            log.warning("Tasks go on with the published configuration of this Airflow host: %s", describe(error))

    def _warn_of_left_out(self, key: str) -> None:
        if self._home is not None and (left_out := self._home.left_out(key)):
            log.warning(
                "These secret settings do not reach tasks, because the deployed worker has no key for them: %s. Deploy "
                "again: `modalflow deploy`.",
                ", ".join(left_out),
            )


def _variables(settings: Settings) -> dict[str, str]:
    """Return the settings of a home as variables."""
    return {
        airflow_variable(section, option): value
        for section, options in settings.items()
        for option, value in options.items()
    }


def _without(variables: Mapping[str, str], names: frozenset[str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name not in names}
