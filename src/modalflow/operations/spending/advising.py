"""The records and the deployment behind advice. Only reads."""

from __future__ import annotations

import time
from datetime import datetime

from modal import exception

from modalflow.cost.advice import Advice, advise
from modalflow.cost.rates import Rates
from modalflow.cost.usage import settled
from modalflow.errors import MalformedMessageError
from modalflow.logs.log_volume import LogVolume
from modalflow.operations.costs import current_rates, read_usage
from modalflow.operations.site import PATIENCE, Site, within


def read_advice(site: Site, since: datetime, dag: str = "") -> tuple[Advice, Rates]:
    """Return advice from work ended since then, of one DAG if it is named, and the rates of its dollars.

    Raises NotDeployedError without a worker app, or the SDK's error.
    """
    records = [record for record in settled(read_usage(site, since).records) if dag in ("", record.dag_id)]
    rates, _ = current_rates(site)
    return advise(records, rates, _granted(site), since.timestamp(), time.time()), rates


def _granted(site: Site) -> dict[str, dict[str, object]]:
    try:
        deployment = within(PATIENCE, LogVolume(site.control_plane, site.names, create=False).deployment)
    except (MalformedMessageError, exception.Error):
        deployment = None
    return {} if deployment is None else {name: dict(granted) for name, granted in deployment.granted.items()}
