"""The parts of a control plane, joined: each one is given what it needs when it is made.

Owns the order of construction. No part is given anything later, except the server of the containers' sockets, which
exists only once the control plane listens.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from grpclib.encoding.proto import ProtoCodec

from modalflow.emulator import listening
from modalflow.emulator.apps.app_lifecycle import AppLifecycle
from modalflow.emulator.apps.app_service import AppService
from modalflow.emulator.apps.apps import Apps
from modalflow.emulator.apps.inspection import Inspection
from modalflow.emulator.apps.rollbacks import Rollbacks
from modalflow.emulator.calls.call_records import CallRecords
from modalflow.emulator.calls.calls import Calls
from modalflow.emulator.calls.function_call import Input
from modalflow.emulator.containers.containers import Containers
from modalflow.emulator.containers.launch.launcher import Launcher, common_variables
from modalflow.emulator.containers.launch.memory_watch import MemoryWatch
from modalflow.emulator.containers.launch.snapshots import Snapshots
from modalflow.emulator.containers.placement import Placement
from modalflow.emulator.containers.pools import Pools
from modalflow.emulator.containers.runtime import Runtime
from modalflow.emulator.control_plane.housekeeping import Housekeeping
from modalflow.emulator.faults.container_faults import ContainerFaults
from modalflow.emulator.faults.control_endpoint import ControlEndpoint
from modalflow.emulator.faults.fault_injector import FaultInjector
from modalflow.emulator.faults.late_commits import LateCommits
from modalflow.emulator.faults.rpc_faults import RpcFaults
from modalflow.emulator.faults.rules import Rules
from modalflow.emulator.faults.spec.values import DELAY
from modalflow.emulator.faults.stoppage import Stoppage
from modalflow.emulator.functions.functions import Functions
from modalflow.emulator.functions.layouts import Layouts
from modalflow.emulator.images.building.build_mode import BuildMode
from modalflow.emulator.images.building.client_packages import ClientPackages
from modalflow.emulator.images.building.root_below import RootBelow, root_below
from modalflow.emulator.images.building_functions import BuildingFunctions
from modalflow.emulator.images.image_names import ImageNames
from modalflow.emulator.images.image_store import ImageStore
from modalflow.emulator.images.images import Images
from modalflow.emulator.logs.logs import Logs
from modalflow.emulator.network.forwarding import Delay
from modalflow.emulator.network.networks import Networks
from modalflow.emulator.network.tunnels import OpenTunnels, Tunnels
from modalflow.emulator.options import Options
from modalflow.emulator.processes.container_spec import Isolation
from modalflow.emulator.processes.fork_server import ForkServer
from modalflow.emulator.queues.queues import Queues
from modalflow.emulator.rpc.container_sockets import ContainerSockets
from modalflow.emulator.rpc.credentials import Credentials
from modalflow.emulator.rpc.dispatcher import Dispatcher, RpcStatusDetails
from modalflow.emulator.rpc.grpc_server import ClosingServer
from modalflow.emulator.rpc.handlers import Handlers
from modalflow.emulator.rpc.service import Service
from modalflow.emulator.services.addresses import Addresses
from modalflow.emulator.services.blobs import Blobs
from modalflow.emulator.services.clients import Clients
from modalflow.emulator.services.cloud_buckets import CloudBuckets, parse
from modalflow.emulator.services.dicts import Dicts
from modalflow.emulator.services.environments import Environments
from modalflow.emulator.services.file_server import FileServer
from modalflow.emulator.services.mounts import Mounts
from modalflow.emulator.services.secrets import Secrets
from modalflow.emulator.state.disk_space import StateError
from modalflow.emulator.state.state_dir import StateDir
from modalflow.emulator.volumes.proc_mounts import ProcMounts
from modalflow.emulator.volumes.volumes import Volumes


@dataclass(frozen=True)
class Base:
    """The parts that all others need: state, access, containers and the rules about faults."""

    state: StateDir
    sockets: ContainerSockets
    in_gvisor: bool
    credentials: Credentials
    environments: Environments
    addresses: Addresses
    fork_server: ForkServer
    networks: Networks
    tunnels: OpenTunnels
    containers: Containers
    rules: Rules
    stoppage: Stoppage
    late_commits: LateCommits
    root: RootBelow
    clients: ClientPackages


@dataclass(frozen=True)
class Storage:
    """Objects that hold data."""

    blobs: Blobs
    secrets: Secrets
    mounts: Mounts
    volumes: Volumes
    dicts: Dicts
    queues: Queues
    images: ImageStore


@dataclass(frozen=True)
class Execution:
    """Apps, and the parts that run their functions."""

    apps: Apps
    functions: Functions
    layouts: Layouts
    logs: Logs
    container_faults: ContainerFaults
    pools: Pools
    calls: Calls
    lifecycle: AppLifecycle
    snapshots: Snapshots
    unfinished: tuple[Input, ...]
    """The inputs that an earlier control plane left to run, oldest first."""


@dataclass(frozen=True)
class Front:
    """The parts that answer clients and containers."""

    images: Images
    handlers: Handlers
    faults: FaultInjector
    dispatcher: Dispatcher
    file_server: FileServer


@dataclass(frozen=True)
class Parts:
    """All parts of a control plane."""

    base: Base
    storage: Storage
    execution: Execution
    front: Front
    housekeeping: Housekeeping
    memory_watch: MemoryWatch


def wire(options: Options, state: StateDir, isolation: Isolation | None = None) -> Parts:
    """Make all parts. Without ``isolation``, containers get the best kind that works on this machine."""
    base = _base(options, state, isolation)
    storage = _storage(base)
    execution = _execution(options, base, storage)
    front = _front(options, base, storage, execution)
    housekeeping = Housekeeping(
        execution.lifecycle,
        execution.calls,
        base.containers,
        execution.pools,
        execution.logs,
        storage.blobs,
        storage.volumes,
    )
    return Parts(base, storage, execution, front, housekeeping, MemoryWatch(base.containers, execution.logs))


def grpc_server(dispatcher: Dispatcher) -> ClosingServer:
    """Return a server that answers with the dispatcher; start it to listen."""
    return ClosingServer([dispatcher], codec=ProtoCodec(), status_details_codec=RpcStatusDetails())


def _token(options: Options, state: StateDir) -> tuple[str, str]:
    """Return the token. Raises StateError for a kept one that is too short for the address."""
    token_id, token_secret = state.token(options.token_id, options.token_secret)
    try:
        listening.check(options.host, options.network, token_secret)
    except ValueError as error:
        raise StateError(f"{error}. Remove token.json in {state.root} to get a random one") from error
    return token_id, token_secret


def _base(options: Options, state: StateDir, isolation: Isolation | None) -> Base:
    sockets = ContainerSockets(state)
    rules = Rules(options.fault_seed)
    addresses = Addresses(state)
    has_own_network = options.network == "none"
    chosen = isolation or (Isolation(options.isolation) if options.isolation else None)
    fork_server = ForkServer(
        common_variables(state),
        isolation=chosen,
        runsc=options.runsc,
        preload=options.fork_server,
        own_network=has_own_network,
        folder=state.folder("containers"),
    )
    networks = Networks(addresses, fork_server, own=has_own_network)
    return Base(
        state=state,
        sockets=sockets,
        in_gvisor=chosen is Isolation.GVISOR,
        credentials=Credentials(*_token(options, state), sockets),
        environments=Environments(state.journal),
        addresses=addresses,
        fork_server=fork_server,
        networks=networks,
        tunnels=OpenTunnels(options.host, networks, _one_way(options)),
        containers=Containers(),
        rules=rules,
        stoppage=Stoppage(),
        late_commits=LateCommits(rules),
        root=root_below(options.base, state),
        clients=ClientPackages(state, fork_server),
    )


def _one_way(options: Options) -> Delay | None:
    """Return half of the delay of answers to clients: their data takes the same way through a tunnel."""
    if options.latency is None:
        return None
    random, latency = Random(options.fault_seed), DELAY.read(options.latency)
    return lambda: latency.draw(random) / 2


def _storage(base: Base) -> Storage:
    state, environments = base.state, base.environments
    blobs = Blobs(state, base.addresses)
    mounts = ProcMounts(base.containers, base.fork_server)
    return Storage(
        blobs=blobs,
        secrets=Secrets(environments, state.journal),
        mounts=Mounts(state, blobs, environments),
        volumes=Volumes(state, base.addresses, environments, mounts, base.late_commits),
        dicts=Dicts(environments, state.journal),
        queues=Queues(environments, state.journal),
        images=ImageStore(state, base.root),
    )


def _execution(options: Options, base: Base, storage: Storage) -> Execution:
    journal, capacity = base.state.journal, options.capacity()
    apps = Apps(base.environments, journal)
    functions = Functions(apps, journal, in_gvisor=base.in_gvisor)
    layouts = Layouts(apps, functions, storage.volumes)
    logs = Logs(apps, storage.images, base.containers, journal)
    snapshots = Snapshots(base.state, base.sockets, base.networks, logs)
    launcher = Launcher(
        base.state,
        base.sockets,
        layouts,
        storage.images,
        storage.mounts,
        storage.secrets,
        storage.volumes,
        CloudBuckets(base.state.folder("buckets"), parse(options.buckets)),
        logs,
        base.fork_server,
        capacity,
        base.networks,
        base.tunnels,
        base.clients,
        snapshots,
    )
    container_faults = ContainerFaults(base.rules, base.containers, launcher)
    placement = Placement(capacity, logs, in_gvisor=base.in_gvisor)
    pools = Pools(base.containers, placement, container_faults, scaledown_window=options.scaledown_window)
    records = CallRecords(journal)
    restored = records.load(functions)
    calls = Calls(functions, pools, records, restored.calls, rate_limits=options.rate_limits)
    lifecycle = AppLifecycle(base.environments, apps, functions, calls, pools, logs)
    unfinished = tuple(restored.waiting)
    return Execution(apps, functions, layouts, logs, container_faults, pools, calls, lifecycle, snapshots, unfinished)


def _front(options: Options, base: Base, storage: Storage, execution: Execution) -> Front:
    images = Images(
        base.state,
        storage.images,
        storage.mounts,
        storage.secrets,
        base.fork_server,
        BuildingFunctions(base.state, execution.functions, execution.pools),
        BuildMode(base.fork_server, list_commands=options.list_image_commands),
        base.clients,
    )
    handlers = Handlers(_services(base, storage, execution, images))
    rpc_faults = RpcFaults(base.rules, handlers, base.stoppage)
    faults = FaultInjector(base.rules, base.stoppage, rpc_faults, execution.container_faults, base.late_commits)
    dispatcher = Dispatcher(handlers, base.credentials, base.state.journal, rpc_faults, base.stoppage)
    file_server = FileServer(
        base.state,
        options.host,
        base.addresses,
        receivers={"blob": storage.blobs, "block": storage.volumes},
        routes=ControlEndpoint(faults, base.containers, base.credentials).routes(),
        stoppage=base.stoppage,
    )
    return Front(images, handlers, faults, dispatcher, file_server)


def _services(base: Base, storage: Storage, execution: Execution, images: Images) -> list[Service]:
    environments, apps, functions = base.environments, execution.apps, execution.functions
    return [
        Clients(),
        environments,
        AppService(environments, apps, execution.lifecycle, base.containers),
        Rollbacks(apps, execution.lifecycle),
        Inspection(apps, functions, execution.pools, environments, base.credentials.token_id),
        functions,
        execution.layouts,
        execution.calls,
        Runtime(environments, functions, execution.pools, storage.volumes, execution.snapshots),
        execution.logs,
        images,
        ImageNames(base.state, environments, storage.images),
        storage.mounts,
        storage.secrets,
        storage.volumes,
        storage.dicts,
        storage.queues,
        storage.blobs,
        Tunnels(base.containers, base.tunnels),
    ]
