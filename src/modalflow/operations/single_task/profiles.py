"""The profiles that a task can run on: those of the deployed worker, or those of a Worker file."""

from __future__ import annotations

from dataclasses import dataclass

from modal import exception

from modalflow.config.settings import Settings
from modalflow.errors import MalformedMessageError, ModalflowError
from modalflow.logs.log_volume import LogVolume
from modalflow.operations.site import PATIENCE, Site, open_site, within
from modalflow.protocol.messages import Deployment
from modalflow.support.described import words_of
from modalflow.worker.deploy.deployment import planned_deployment
from modalflow.worker.deploy.worker import Worker, read_worker


@dataclass(frozen=True)
class Profiles:
    """Profiles and their source."""

    deployment: Deployment | None
    """None if they are unknown."""
    source: str
    """For a user: the worker app, or the file."""
    worker: Worker | None = None
    """The Worker of the file; None for those of the deployed worker."""
    site: Site | None = None
    """The connection to the deployed worker; None if Modal was not contacted, or did not answer."""
    problem: str = ""
    """Why they are unknown."""


def read_profiles(settings: Settings, worker_file: str = "") -> Profiles:
    """Return the profiles of a Worker file, without contacting Modal, or those of the deployed worker.

    Raises DeployError for a wrong file. If Modal has no record or does not answer, the result has the reason.
    """
    if worker_file:
        worker = read_worker(worker_file)
        return Profiles(planned_deployment(settings.names, worker), worker_file, worker)
    source = f"worker app {settings.app_name}"
    try:
        site = open_site(settings)
        record = within(PATIENCE, LogVolume(site.control_plane, site.names, create=False).deployment)
    except (MalformedMessageError, exception.NotFoundError):
        record = None
    except (ModalflowError, exception.Error, TimeoutError) as error:
        return Profiles(None, source, problem=words_of(error))
    if record is None:
        return Profiles(None, source, problem=f"The worker app {settings.app_name!r} is not deployed.")
    return Profiles(record, source, site=site)
