"""The settings of the executor: one table, read once, validated before anything starts.

The table ``OPTIONS`` is also Airflow's provider metadata and the documentation, so the three cannot differ. Knows
nothing of Airflow: it reads from any object with ``get`` and ``getsection`` as in Airflow's configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modalflow.config.budgets import EXAMPLE as BUDGETS_EXAMPLE
from modalflow.config.budgets import Budget, read_budgets
from modalflow.config.option_parsers import app_name, one_of, queues, seconds, switch, text, variables_of, whole
from modalflow.config.source import ConfigSource
from modalflow.config.urls import execution_api_url
from modalflow.config.values import LONGEST_TIMEOUT
from modalflow.errors import ConfigError, a_known_name
from modalflow.names import DEFAULT_APP, Names

SECTION = "modal_executor"


@dataclass(frozen=True)
class Option:
    """One option of ``[modal_executor]``."""

    name: str
    type: str
    """Airflow's name for the type: string, integer, float or boolean."""
    default: str
    description: str
    example: str
    parse: Callable[[str, str], Any]
    """Called with (place, raw text); returns the value or raises ConfigError."""
    unit: str = ""
    """The unit of a number; empty for other values."""
    version_added: str = "0.4.0"

    @property
    def help_text(self) -> str:
        """The description with the unit."""
        return f"{self.description} Unit: {self.unit}." if self.unit else self.description

    def variable(self, team: str = "") -> str:
        """Return its environment variable, for one team if one is named."""
        return f"AIRFLOW__{team}{'___' if team else ''}{SECTION}__{self.name}".upper()

    def read(self, source: ConfigSource) -> Any:
        """Return its value in a source. Raises ConfigError."""
        raw = source.get(SECTION, self.name, fallback=self.default)
        return self.parse(where(self.name), self.default if raw is None else str(raw))


def where(name: str) -> str:
    """Return an option's name for an error."""
    return f"[{SECTION}] {name}"


UI = Option(
    "ui",
    "boolean",
    "True",
    "Whether Airflow's UI shows Modal (from Airflow 3.1 on): the page, the tabs, their API, and the extra link. Each "
    "Airflow process reads it at its start, from the configuration for all teams. See [Modal in Airflow's UI](ui.md).",
    "False",
    switch,
    version_added="0.5.0",
)


OPTIONS: tuple[Option, ...] = (
    Option(
        "app_name",
        "string",
        DEFAULT_APP,
        "Name of the deployed worker app. Its Dict, Modal Queue and Volume have this prefix.",
        "modalflow-prod",
        app_name,
    ),
    Option(
        "conn_id",
        "string",
        "modal_default",
        "Airflow connection of type `modal` with the credentials. If the default one does not exist, the executor uses "
        "the environment variables MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, then ~/.modal.toml.",
        "modal_default",
        text,
    ),
    Option(
        "environment",
        "string",
        "",
        "Modal environment of the worker app. If empty: the environment of the connection, otherwise the default of "
        "the credentials.",
        "main",
        text,
    ),
    Option(
        "execution_api_url",
        "string",
        "",
        "URL of Airflow's Execution API, if containers can reach it directly. If empty, they use the relay.",
        "https://airflow.example.com/execution/",
        execution_api_url,
    ),
    Option(
        "execution_api",
        "string",
        "auto",
        "How containers reach Airflow's Execution API. `direct`: at its URL. `relay`: over Modal, with no open port. "
        "`auto`: directly if `execution_api_url` is set, otherwise by the relay.",
        "relay",
        one_of("auto", "relay", "direct"),
        version_added="0.5.0",
    ),
    Option(
        "relays",
        "integer",
        "1",
        "How many relays the scheduler runs, if containers use them. 0: you run `modalflow relay` as a service.",
        "0",
        whole(0, 32, "1"),
        unit="processes",
        version_added="0.5.0",
    ),
    Option(
        "relay_transport",
        "string",
        "queues",
        "How requests travel to relays. `queues`: over a Modal Queue. `tunnel`: each container listens behind a Modal "
        "tunnel, and a relay holds a connection to it; without one, over the Modal Queue. Set it for relays, too.",
        "tunnel",
        one_of("queues", "tunnel"),
        version_added="0.5.0",
    ),
    Option(
        "submit_concurrency",
        "integer",
        "128",
        "How many spawns run at once. If Modal answers within 0.1 s, 128 allow 1,280 spawns a second. Modal accepts "
        "1,500 a second.",
        "128",
        whole(1, 1000, "128"),
        unit="spawns",
    ),
    Option(
        "submit_attempts",
        "integer",
        "3",
        "How many times the executor submits a workload before it gives up, as long as no container has begun it.",
        "3",
        whole(1, 100, "3"),
        unit="submissions",
    ),
    Option(
        "infrastructure_retries",
        "integer",
        "3",
        "How often a task runs again, at once and without using one of its `retries`, if it loses its container "
        "through no fault of its own: by preemption, a crash of the host, or a stopped app. It applies to tasks with "
        "`retries`. A task without any needs this option in its profile or its `executor_config`. 0: never.",
        "0",
        whole(0, 100, "3"),
        unit="runs",
        version_added="0.5.0",
    ),
    Option(
        "task_timeout",
        "float",
        str(LONGEST_TIMEOUT),
        "After this time in a container, the executor cancels a workload. The wait for a container does not count.",
        "3600",
        seconds(1, LONGEST_TIMEOUT, "3600"),
        unit="seconds",
    ),
    Option(
        "lost_command_policy",
        "string",
        "fail",
        "If a raw command times out or loses its container: fail it, or retry it (the executor submits it again, so it "
        "must tolerate running twice). Airflow's own workloads use the task's retries.",
        "fail",
        one_of("fail", "retry"),
    ),
    Option(
        "sweep_interval",
        "float",
        "10",
        "If the executor has no news of a workload for this time, it checks the workload. It checks long tasks less "
        "often.",
        "10",
        seconds(0.1, 3600, "10"),
        unit="seconds",
    ),
    Option(
        "connect_timeout",
        "float",
        "30",
        "How long the executor waits for Modal at its start.",
        "30",
        seconds(1, 600, "30"),
        unit="seconds",
    ),
    Option(
        "status_interval",
        "float",
        "10",
        "How often the executor reports its work for `modalflow status`, if it has changed. Each report is one RPC, "
        "for any number of tasks. 0: never.",
        "10",
        seconds(0, 3600, "10"),
        unit="seconds",
    ),
    Option(
        "queues",
        "string",
        "",
        "Airflow queue → profile, as a JSON object, if a queue and its profile have different names. `*` means every "
        "other queue without a profile. Airflow's default queue uses `default`. If another queue has no profile, the "
        "executor rejects its tasks.",
        '{"gpu-queue": "gpu", "*": "default"}',
        queues,
        version_added="0.5.0",
    ),
    Option(
        "max_option_sets",
        "integer",
        "32",
        "How many different sets of options the tasks of a profile may use in their `executor_config` within an hour. "
        "Each set is a separate container pool. Beyond the limit, the executor rejects a task. 0: no limit.",
        "32",
        whole(0, 10_000, "32"),
        unit="sets",
        version_added="0.5.0",
    ),
    Option(
        "budgets",
        "string",
        "",
        "Limits in dollars, as a JSON list of objects: `dag`, `profile` or `team` (a name, or `*` for each; none of "
        "them: all work), `per` (`day` or `month`), `dollars`, and `action`: `warn`, `hold` (tasks wait for the next "
        "period) or `refuse` (tasks fail before they start). See [Budgets](cost.md#budgets).",
        BUDGETS_EXAMPLE,
        read_budgets,
        version_added="0.5.0",
    ),
    Option(
        "worker_env",
        "string",
        "",
        "Environment variables of every workload, as a JSON object. The variables of the deployment, its profile and "
        "the task override them. Airflow replaces `$NAME` in every option by that variable of the Airflow host: write "
        "`\\u0024NAME` to keep it.",
        '{"TZ": "UTC"}',
        variables_of,
    ),
    UI,
)


@dataclass(frozen=True)
class Settings:
    """The validated settings of one executor."""

    app_name: str
    conn_id: str
    environment: str
    execution_api_url: str
    execution_api: str
    relays: int
    relay_transport: str
    submit_concurrency: int
    submit_attempts: int
    infrastructure_retries: int
    task_timeout: float
    lost_command_policy: str
    sweep_interval: float
    connect_timeout: float
    status_interval: float
    queues: Mapping[str, str]
    max_option_sets: int
    budgets: Sequence[Budget]
    worker_env: Mapping[str, str]
    ui: bool
    works_without_relay: bool = False
    """Whether containers may go directly to the host's URL as long as the deployed worker has no relay key."""
    time_zone: str = "UTC"
    """The zone of the days and months of budgets: [core] default_timezone."""
    queued_timeout: float = 600.0
    """[scheduler] task_queued_timeout, in seconds."""

    @property
    def names(self) -> Names:
        return Names(self.app_name)

    @property
    def uses_relay(self) -> bool:
        """Whether containers reach the Execution API by the relay: by default, if no URL is set for them."""
        if self.execution_api == "auto":
            return not self.execution_api_url
        return self.execution_api == "relay"

    @classmethod
    def read(cls, source: ConfigSource) -> Settings:
        """Read and check every option. Raises ConfigError for the first wrong or unknown one."""
        settings, mistakes = cls.examine(source)
        for mistake in mistakes:
            raise mistake
        return settings

    @classmethod
    def examine(cls, source: ConfigSource) -> tuple[Settings, list[ConfigError]]:
        """Read every option. Return the settings, with defaults for wrong values, and the mistakes."""
        known = {option.name for option in OPTIONS}
        mistakes = [
            ConfigError(where(name), value, a_known_name(name, known))
            for name, value in (source.getsection(SECTION) or {}).items()
            if name not in known
        ]
        values = {}
        for option in OPTIONS:
            try:
                values[option.name] = option.read(source)
            except ConfigError as mistake:
                mistakes.append(mistake)
                values[option.name] = option.parse(where(option.name), option.default)
        return cls(**values), mistakes

    @classmethod
    def defaults(cls, **changes: Any) -> Settings:
        """Return the defaults with some changed values, for programs without an Airflow configuration."""
        values = {option.name: option.parse(where(option.name), option.default) for option in OPTIONS}
        return cls(**(values | changes))
