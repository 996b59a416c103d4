"""Every object of the engine, made in the order in which one depends on another. Nothing is assigned later."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from zoneinfo import ZoneInfo

from modalflow.airflow_compat import scheduler
from modalflow.airflow_home.host_home import HostHome
from modalflow.config.settings import Settings
from modalflow.executor.budgets.budget_watch import BudgetWatch
from modalflow.executor.budgets.gate import BudgetGate
from modalflow.executor.budgets.running_costs import RunningCosts
from modalflow.executor.budgets.spend_keeper import SpendKeeper
from modalflow.executor.connection import Connection, Connector
from modalflow.executor.holds.admission import Admission
from modalflow.executor.holds.held_tasks import HeldTasks
from modalflow.executor.holds.ledger_reading import LedgerReading
from modalflow.executor.holds.profile_gate import ProfileGate
from modalflow.executor.holds.profile_watch import ProfileWatch
from modalflow.executor.holds.recall import Recall
from modalflow.executor.home_publisher import HomePublisher
from modalflow.executor.lifecycle import claims
from modalflow.executor.lifecycle.adopter import Adopter
from modalflow.executor.lifecycle.airflow_state import StateDatabase, StateQueries
from modalflow.executor.lifecycle.calls import Calls
from modalflow.executor.lifecycle.claims import Claims
from modalflow.executor.lifecycle.decision import Policy
from modalflow.executor.lifecycle.event_listener import EventListener
from modalflow.executor.lifecycle.outcomes import FailureReports, Outcomes
from modalflow.executor.lifecycle.recovery import Recovery
from modalflow.executor.lifecycle.sweeper import Sweeper
from modalflow.executor.lifecycle.tracker import Tracker
from modalflow.executor.loop_tasks import BoundedTasks, LoopTasks
from modalflow.executor.losses.infrastructure_retries import InfrastructureRetries
from modalflow.executor.mailbox import Outbox
from modalflow.executor.modal_api.modal_api import ApiObserver, ModalApi
from modalflow.executor.modal_api.usage_reader import UsageReader
from modalflow.executor.relays import RelayKey, RelayProcesses
from modalflow.executor.reporting.metrics import Metrics
from modalflow.executor.reporting.publisher import Identity, Publisher
from modalflow.executor.reporting.task_log_notes import TaskLogNotes
from modalflow.executor.reporting.wait_reasons import WaitReasons
from modalflow.executor.submission.intake import Intake
from modalflow.executor.submission.placement import OptionSets, Placement, Routing
from modalflow.executor.submission.run_history import RunHistory
from modalflow.executor.submission.shortages import Shortages
from modalflow.executor.submission.size_lookups import SizeLookups
from modalflow.executor.submission.submitter import Submitter


class Wiring:
    """The engine's objects. They outlive its thread: another thread goes on with them."""

    def __init__(
        self,
        settings: Settings,
        open_api: Callable[[ApiObserver], ModalApi],
        identity: Identity,
        database: StateDatabase | None,
        default_queue: str,
        loop: asyncio.AbstractEventLoop,
        home: HostHome | None = None,
    ) -> None:
        self.partition = partition = f"executor-{uuid.uuid4().hex[:16]}"
        policy = Policy.of(settings, has_database=database is not None)
        interval = settings.sweep_interval

        # What is known, and the ways out of the engine.
        self.calls = calls = Calls()
        self.outbox = outbox = Outbox()
        self.connection = connection = Connection(relay_transport=settings.relay_transport)
        self.tasks = tasks = LoopTasks(loop)
        self.rpcs = rpcs = BoundedTasks(claims.CONCURRENCY, tasks)
        self.removals = removals = BoundedTasks(claims.REMOVALS, tasks)
        self.metrics = metrics = Metrics(scheduler.stats, identity.team)
        self.notes = notes = TaskLogNotes(connection)
        self.queries = queries = StateQueries(database)

        # What work costs.
        zone = ZoneInfo(settings.time_zone)
        usage = UsageReader(connection)
        costs = RunningCosts(identity.team, zone, wanted=bool(settings.budgets))
        self.gate = gate = BudgetGate(settings.budgets, costs)
        self.keeper = keeper = SpendKeeper(settings.budgets, zone, partition, connection, costs, usage)

        # How calls end.
        self.claims = Claims(partition, connection, rpcs, removals)
        routing = Routing(settings.queues, default_queue)
        limits = InfrastructureRetries(settings.infrastructure_retries, database is not None, routing, connection)
        failures = FailureReports(outbox, self.claims, queries, limits, notes, metrics)
        self.outcomes = outcomes = Outcomes(calls, self.claims, outbox, failures, notes, metrics, costs)

        # How they get to Modal.
        self.profile_gate = profile_gate = ProfileGate()
        self.admission = admission = Admission((profile_gate, gate), costs, outcomes, metrics)
        self.submitter = submitter = Submitter(
            policy, calls, connection, outcomes, metrics, tasks, admission, settings.submit_concurrency
        )
        placement = Placement(
            routing,
            OptionSets(settings.max_option_sets, time.monotonic),
            settings.task_timeout,
        )
        self.history = history = RunHistory(usage)
        shortages = Shortages(connection, notes)
        self.homes = homes = HomePublisher(home, identity.team, settings.worker_env)
        self.intake = intake = Intake(
            partition,
            identity.team,
            calls,
            connection,
            homes,
            placement,
            limits,
            submitter,
            outcomes,
            notes,
            metrics,
            rpcs,
            SizeLookups(history, shortages, BoundedTasks(claims.CONCURRENCY, tasks)),
        )
        self.relay_key = relay_key = RelayKey(
            connection, wanted=settings.execution_api == "relay", optional=settings.works_without_relay
        )
        self.relays = RelayProcesses(settings, relay_key, connection)
        self.connector = Connector(connection, open_api, homes, metrics, submitter, tasks, relay_key)

        # What becomes of them there.
        recovery = Recovery(policy, connection, queries, outcomes, intake, submitter, notes, metrics, rpcs)
        self.tracker = tracker = Tracker(
            partition, policy, calls, connection, self.claims, outcomes, recovery, submitter, notes, rpcs, shortages
        )
        self.events = EventListener(partition, calls, connection, tracker, outcomes)
        self.sweeper = sweeper = Sweeper(policy, calls, connection, tracker, outcomes, interval, shortages)
        self.adopter = Adopter(calls, connection, tracker, sweeper, outcomes, metrics, placement, costs, rpcs)
        recall = Recall(partition, connection, outcomes, recovery, tracker, rpcs)
        ledger = LedgerReading(calls, connection, tracker, outcomes)
        self.held_tasks = held = HeldTasks(settings.queued_timeout, admission, queries, recovery, submitter, outcomes)
        self.budgets = BudgetWatch(zone, calls, costs, keeper, gate, admission, recall, held, ledger, outcomes, metrics)
        self.profiles = ProfileWatch(calls, connection, profile_gate, admission, held, ledger, recall)

        # What users and operators see.
        self.wait_reasons = WaitReasons(calls, connection, queries, outcomes, sweeper, admission, interval)
        self.publisher = Publisher(
            partition,
            identity,
            calls,
            connection,
            metrics,
            homes,
            gate,
            profile_gate,
            admission,
            settings.status_interval,
        )
