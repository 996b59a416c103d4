"""An operator's own classes and functions for options with a dotted path. None changes how Airflow works."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from airflow.sdk.bases.xcom import BaseXCom
from airflow.secrets import BaseSecretsBackend
from airflow.utils.log.timezone_aware import TimezoneAware

try:
    from airflow.sdk.state import BaseStoreBackend
except ImportError:  # Airflow before 3.3.
    BaseStoreBackend = object  # type: ignore[assignment,misc]


class OwnXCom(BaseXCom):
    """Airflow's own backend under another name."""


class OwnSecrets(BaseSecretsBackend):
    """A secrets backend without any secret."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()

    def get_connection(self, conn_id: str, *arguments: Any, **more: Any) -> None:
        """Return no connection."""

    def get_variable(self, key: str, *arguments: Any, **more: Any) -> None:
        """Return no variable."""

    def get_config(self, key: str) -> None:
        """Return no option."""


class OwnState(BaseStoreBackend):
    """The state of tasks in Airflow's database, under another name."""

    def serialize_task_state_store_to_ref(self, *, value: Any, key: str, scope: Any) -> str:
        """Return a text with the value."""
        return json.dumps({"acme": value})

    def deserialize_task_state_store_from_ref(self, stored: str) -> Any:
        """Return the value in the text."""
        return json.loads(stored)["acme"]


# Only Airflow's processes on the host use these methods, and not those of this class.
if hasattr(OwnState, "__abstractmethods__"):
    OwnState.__abstractmethods__ = frozenset()


class OwnFormatter(TimezoneAware):
    """Airflow's own formatter under another name."""


class OwnExtractor:
    """An OpenLineage extractor for no operator."""

    def __init__(self, operator: Any = None) -> None: ...

    @classmethod
    def get_operator_classnames(cls) -> list[str]:
        """Return the operators: none of Airflow's."""
        return ["AcmeOperator"]


def might_contain_dag(file_path: str, zip_file: Any = None) -> bool:
    """Accept every file."""
    return True


def send_email(*arguments: Any, **more: Any) -> None:
    """Send an e-mail as Airflow does."""
    from airflow.utils.email import send_email_smtp

    send_email_smtp(*arguments, **more)


def mask(secret: str) -> Iterable[str]:
    """Mask the reversed secret too."""
    return [secret[::-1]]


def stat_name(name: str) -> str:
    """Keep the name of a metric."""
    return name


def run_facet(*arguments: Any) -> None:
    """Add no facet to an event of OpenLineage."""


def before_send(event: Any, hint: Any) -> None:
    """Drop an event of Sentry."""


def index_patterns(*arguments: Any) -> str:
    """Return the indices of OpenSearch."""
    return "acme-*"
