"""The options of a local control plane: one table for the command line, LocalModal and the server.

Owns the table and its conversion to and from a command line. Secrets are passed in the environment: any user of the
machine can read command lines.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from modalflow.emulator import listening
from modalflow.emulator.containers.capacity import Capacity, machine_cores, machine_memory_mib, read_gpus
from modalflow.emulator.processes.container_spec import Isolation

TOKEN_ID_VARIABLE = "MODALFLOW_LOCAL_TOKEN_ID"  # noqa: S105 (a variable's name)
TOKEN_SECRET_VARIABLE = "MODALFLOW_LOCAL_TOKEN_SECRET"  # noqa: S105 (a variable's name)

#: Variables with the defaults of these options, for programs that start control planes of their own.
ISOLATION_VARIABLE = "MODALFLOW_LOCAL_ISOLATION"
RUNSC_VARIABLE = "MODALFLOW_LOCAL_RUNSC"
BASE_VARIABLE = "MODALFLOW_LOCAL_BASE"

#: The network of containers.
NETWORKS = ("host", "none")

#: The kinds of isolation that can be chosen.
ISOLATIONS = tuple(kind.value for kind in Isolation)

LOG_LEVELS = ("debug", "info", "warning", "error")


def _option(default: Any, help: str, **extra: Any) -> Any:
    return field(default=default, metadata={"help": help, **extra})


@dataclass(frozen=True)
class Options:
    """The settings of one local control plane.

    ``host`` is a loopback address, or this machine's address in a private network: see listening.py. ``port`` 0 lets
    the system choose.
    Without ``state_dir``, the state is in a temporary folder that is removed at the end. Without a token, it is the one
    of the state folder, or a random one.
    """

    host: str = _option("127.0.0.1", "Address to listen on: a loopback address, or one in a private network.")
    port: int = _option(0, "Port to listen on; 0 lets the system choose a free one.")
    state_dir: Path | None = _option(  # noqa: RUF009
        None,
        "Folder for the state and the token, kept over restarts (Secrets unencrypted). Default: nothing is kept.",
        type=Path,
    )
    max_containers: int = _option(32, "Most containers that run at once, over all functions.")
    cpus: float | None = _option(None, "Cores that containers may request. Default: the machine's.", type=float)
    memory: int | None = _option(None, "MiB of memory that containers may request. Default: the machine's.", type=int)
    gpus: Sequence[str] | Mapping[str, int] = _option(
        (),
        "GPUs that containers may request, e.g. H100=2; repeatable. Default: none, and all run without.",
        flag="--gpu",
        many=True,
    )
    scaledown_window: float = _option(60.0, "Seconds to keep an idle container, if its function does not set them.")
    fork_server: bool = _option(True, "Fork containers from one process instead of starting an interpreter for each.")
    isolation: str | None = _option(
        None,
        "Isolation of containers: `root`, `user`, `plain`, or `gvisor`, Modal's sandbox. Default: the first of the "
        "first three that works on this machine.",
        type=str,
        choices=ISOLATIONS,
    )
    runsc: Path | None = _option(  # noqa: RUF009
        None, "gVisor's program for `--isolation gvisor`. Default: on PATH.", type=Path
    )
    network: str = _option(
        "host",
        "Network of containers: `host` is this machine's, `none` a loopback of its own for each container.",
        choices=NETWORKS,
    )
    base: str | None = _option(
        None,
        "Root file system below images: a folder, e.g. from debootstrap, or `oci:PATH` for an OCI layout or an archive "
        "of `docker save`. Needs isolation `root` or `gvisor`. Default: this machine's root.",
        type=str,
    )
    list_image_commands: bool = _option(
        False,
        "List the commands of images in the build log instead of running them, except installations by pip. Otherwise "
        "they run with isolation `root` and `gvisor`, and fail the build with `user` and `plain`.",
    )
    rate_limits: bool = _option(False, "Refuse inputs above Modal's rates: 200 a second, 1500 spawned.")
    buckets: Sequence[str] = _option(
        (),
        "Folder for a cloud bucket, NAME=FOLDER; repeatable. Default: one in the state folder.",
        flag="--bucket",
        many=True,
    )
    log_level: str = _option("warning", "Log level on stderr.", choices=LOG_LEVELS)
    latency: str | None = _option(
        None, "Delay of answers to clients, e.g. 80ms, 80ms±20ms or normal(80ms,20ms).", type=str
    )
    faults: Sequence[str] = _option(
        (), "Fault to inject, e.g. 'FunctionMap:unavailable,p=0.1'. Repeatable.", flag="--fault", many=True
    )
    fault_seed: int = _option(0, "Seed of the faults. The same seed gives the same faults.")
    with_parent: bool = _option(False, "End when the process that started the control plane ends.", internal=True)
    token_id: str | None = field(default=None, metadata={"secret": TOKEN_ID_VARIABLE})
    token_secret: str | None = field(default=None, repr=False, metadata={"secret": TOKEN_SECRET_VARIABLE})

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port is {self.port}; expected 0 (any free one) to 65535")
        if self.max_containers < 1:
            raise ValueError(f"max_containers is {self.max_containers}; expected at least 1")
        if self.cpus is not None and self.cpus <= 0:
            raise ValueError(f"cpus is {self.cpus}; expected a number above 0, e.g. 4")
        if self.memory is not None and self.memory <= 0:
            raise ValueError(f"memory is {self.memory}; expected MiB above 0, e.g. 8192")
        if isinstance(self.gpus, Mapping):
            object.__setattr__(self, "gpus", tuple(f"{kind}={count}" for kind, count in self.gpus.items()))
        object.__setattr__(self, "gpus", tuple(self.gpus))
        read_gpus(self.gpus)
        if self.scaledown_window <= 0:
            raise ValueError(f"scaledown_window is {self.scaledown_window}; expected seconds above 0, e.g. 60")
        if self.network not in NETWORKS:
            raise ValueError(f"network is {self.network!r}; expected one of {', '.join(NETWORKS)}")
        listening.check(self.host, self.network, self.token_secret)
        if self.isolation is None and os.environ.get(ISOLATION_VARIABLE):
            object.__setattr__(self, "isolation", os.environ[ISOLATION_VARIABLE])
        if self.runsc is None and os.environ.get(RUNSC_VARIABLE):
            object.__setattr__(self, "runsc", Path(os.environ[RUNSC_VARIABLE]))
        if self.runsc is not None:
            # Containers are started from another working directory.
            object.__setattr__(self, "runsc", Path(self.runsc).absolute())
        if self.isolation is not None and self.isolation not in ISOLATIONS:
            raise ValueError(f"isolation is {self.isolation!r}; expected one of {', '.join(ISOLATIONS)}")
        if self.base is None and os.environ.get(BASE_VARIABLE):
            object.__setattr__(self, "base", os.environ[BASE_VARIABLE])
        if self.base is not None:
            _check_base(self.base, list_commands=self.list_image_commands)
        if self.log_level not in LOG_LEVELS:
            raise ValueError(f"log_level is {self.log_level!r}; expected one of {', '.join(LOG_LEVELS)}")
        object.__setattr__(self, "faults", tuple(self.faults))
        object.__setattr__(self, "buckets", tuple(self.buckets))
        if self.buckets:
            _check_buckets(self.buckets)
        if self.latency is not None or self.faults:
            _check_faults(self.latency, self.faults)
        if self.token_id == "" or self.token_secret == "":
            raise ValueError("token_id and token_secret must not be empty; omit them to get random ones")

    def capacity(self) -> Capacity:
        """Return the resources for containers."""
        return Capacity(
            cores=self.cpus or machine_cores(),
            memory_mib=self.memory or machine_memory_mib(),
            containers=self.max_containers,
            gpus=read_gpus(self.gpus) if self.gpus else None,
        )

    @property
    def fault_rules(self) -> tuple[str, ...]:
        """The specifications of all faults, with the latency of clients: containers are closer to Modal."""
        return (*((f"*:delay={self.latency},for=clients",) if self.latency else ()), *self.faults)

    def to_argv(self) -> list[str]:
        """Return a command line for ``from_argv``, without defaults and secrets."""
        argv: list[str] = []
        for option in table():
            value = getattr(self, option.name)
            if value == option.default:
                continue
            if option.is_flag:
                argv.append(option.flag if value else option.off_flag)
            else:
                # With `=`, because a value may start with a dash.
                argv += [f"{option.flag}={each}" for each in (value if option.many else (value,))]
        return argv

    def to_environ(self) -> dict[str, str]:
        """Return the environment variables with the secrets."""
        carried = {TOKEN_ID_VARIABLE: self.token_id, TOKEN_SECRET_VARIABLE: self.token_secret}
        return {variable: value for variable, value in carried.items() if value is not None}

    @classmethod
    def from_argv(cls, argv: Sequence[str], environ: Mapping[str, str] | None = None) -> Options:
        """Read a command line; end the process with a usage message if it is wrong."""
        environ = os.environ if environ is None else environ
        parser = argparse.ArgumentParser("modalflow.emulator", description="Modal's control plane on this machine.")
        for option in table():
            if option.is_flag:
                parser.add_argument(
                    option.flag,
                    dest=option.name,
                    action=argparse.BooleanOptionalAction,
                    default=option.default,
                    help=option.help,
                )
            else:
                parser.add_argument(
                    option.flag,
                    dest=option.name,
                    type=option.type,
                    default=list(option.default) if option.many else option.default,
                    action="append" if option.many else "store",
                    choices=option.choices,
                    help=option.help,
                )
        given = vars(parser.parse_args(argv))
        given |= {f.name: environ[v] for f in fields(cls) if (v := f.metadata.get("secret")) and environ.get(v)}
        try:
            return cls(**given)
        except ValueError as error:
            parser.error(str(error))


def _check_base(base: str, *, list_commands: bool) -> None:
    # Imported here, because most programs that start control planes use this machine's root.
    from modalflow.emulator.images.building.root_below import check

    if list_commands:
        raise ValueError("base and list_image_commands exclude each other: images over a base run their commands")
    check(base)


def _check_buckets(buckets: Sequence[str]) -> None:
    # Imported here, because most programs that start control planes use no buckets.
    from modalflow.emulator.services.cloud_buckets import parse

    parse(buckets)


def _check_faults(latency: str | None, specs: Sequence[str]) -> None:
    # Imported here, because most programs use no faults.
    from modalflow.emulator.faults.spec.fault_spec import parse
    from modalflow.emulator.faults.spec.values import DELAY

    if latency is not None:
        try:
            DELAY.read(latency)
        except ValueError:
            raise ValueError(f"latency is {latency!r}; expected {DELAY.expected}, e.g. {DELAY.example}") from None
    for spec in specs:
        parse(spec)


@dataclass(frozen=True)
class Option:
    """One row of the table: a field of Options as an option of a command line."""

    name: str
    default: Any
    help: str
    type: type
    choices: tuple[str, ...] | None
    flag: str
    many: bool
    """Whether you can give it more than once; its value is a tuple."""
    internal: bool
    """Whether it is for programs that start control planes, and not for users."""

    @property
    def off_flag(self) -> str:
        """The option that switches a flag off."""
        return "--no-" + self.flag.removeprefix("--")

    @property
    def is_flag(self) -> bool:
        return self.type is bool


def table() -> tuple[Option, ...]:
    """Return every option of the command line, in the order of the class."""
    return tuple(
        Option(
            name=f.name,
            default=f.default,
            help=f.metadata["help"],
            type=f.metadata.get("type", str if f.metadata.get("many") else type(f.default)),
            choices=f.metadata.get("choices"),
            flag=f.metadata.get("flag", "--" + f.name.replace("_", "-")),
            many=f.metadata.get("many", False),
            internal=f.metadata.get("internal", False),
        )
        for f in fields(Options)
        if "secret" not in f.metadata
    )
