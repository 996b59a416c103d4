"""A function: its definitions, the options and parameters bound to it, and its description for clients.

Owns one function. `Functions` knows all of them; `Calls` and `Pools` call and run them.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from modal_proto import api_pb2

from modalflow.emulator.apps.app import App
from modalflow.emulator.calls.backlog import Backlog
from modalflow.emulator.ids import new_id
from modalflow.emulator.rpc.wire import message, optional

#: Fields of FunctionOptions that replace a field of another name in Function; all others have the same name in both.
_RENAMED_OPTIONS = {"buffer_containers": "_experimental_buffer_containers"}

#: Options that a definition has twice: as a field for old clients, and among the autoscaler settings.
_AUTOSCALER_OPTIONS = {
    "concurrency_limit": "max_containers",
    "task_idle_timeout_secs": "scaledown_window",
    "buffer_containers": "buffer_containers",
}

#: Handled one by one in ``apply_options``, or without a meaning here.
_SPECIAL_OPTIONS = frozenset(
    {
        "secret_ids",
        "replace_secret_ids",
        "mount_ids",
        "volume_mounts",
        "replace_volume_mounts",
        "cloud_bucket_mounts",
        "replace_cloud_bucket_mounts",
        "resources",
        "retry_policy",
        "pinned_app_version",
    }
)


@dataclass(frozen=True)
class Scaling:
    """The autoscaler settings of a function. ``max_containers`` 0 means no limit."""

    min_containers: int
    max_containers: int
    buffer_containers: int
    scaledown_window: float
    settings: api_pb2.AutoscalerSettings


class BuildOutput(Protocol):
    """The log of a build."""

    def piece(self, text: str, source: int) -> None:
        """Add a line, or the beginning of one, from a file descriptor."""
        ...


@dataclass(eq=False)
class Building:
    """The build that a function runs for (Image.run_function)."""

    output: BuildOutput
    """Receives what its container prints."""
    kept: Path
    """A folder for the files that its container writes."""
    layer: Path | None = None
    """The files that its container started with."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when its container has ended."""


@dataclass(eq=False)
class Function:
    """A function of an app, or a variant of one: ``parent`` with its options or class parameters bound."""

    app: App
    tag: str
    object_id: str = field(default_factory=lambda: new_id("fu"))
    definition: api_pb2.Function = field(default_factory=api_pb2.Function)
    staged: api_pb2.Function | None = None
    revision: int = 0
    definition_id: str = field(default_factory=lambda: new_id("de"))
    parent: Function | None = None
    options: api_pb2.FunctionOptions | None = None
    serialized_params: bytes = b""
    autoscaler: api_pb2.AutoscalerSettings = field(default_factory=api_pb2.AutoscalerSettings)
    """The settings of ``update_autoscaler``; they last until the next deployment."""
    backlog: Backlog = field(default_factory=Backlog)
    fallbacks: list[api_pb2.Resources] = field(default_factory=list)
    """Alternatives if the requested resources are not free: the rest of a list of GPUs."""
    removed: bool = False
    definitions: dict[int, api_pb2.Function] = field(default_factory=dict)
    """Its definition in each kept version of its app."""
    pinned: int = 0
    """The version of the app that its parent is taken from; 0 for the current one."""
    building: Building | None = None
    _spec: tuple[int, api_pb2.Function] | None = None
    _scaling: tuple[int, float, Scaling] | None = None

    @property
    def root(self) -> Function:
        return self if self.parent is None else self.parent.root

    @property
    def current_revision(self) -> int:
        if self.pinned:
            return self.pinned
        return self.revision if self.parent is None else self.parent.current_revision

    @property
    def pinned_version(self) -> int:
        """The version of the app that it is pinned to, 0 for none."""
        return self.pinned or (self.parent.pinned_version if self.parent is not None else 0)

    @property
    def spec(self) -> api_pb2.Function:
        """The definition that new containers run, with options applied."""
        revision = self.current_revision
        if self._spec is None or self._spec[0] != revision:
            self._spec = (revision, self._effective())
        return self._spec[1]

    @property
    def fallbacks_of_spec(self) -> list[api_pb2.Resources]:
        """The fallbacks, unless options ask for other resources."""
        if self.parent is None:
            return self.fallbacks
        if self.options is not None and self.options.HasField("resources"):
            return []
        return self.parent.fallbacks_of_spec

    @property
    def callable_reason(self) -> str:
        """Why the function cannot be called, empty if it can."""
        if self.app.is_over:
            return f"App {self.app.app_id} of function {self.tag!r} is stopped"
        if self.root.removed and not self.pinned_version:
            return f"Function {self.tag!r} is no longer part of app {self.app.app_id}"
        return ""

    def keep(self, number: int, copy_of: int, oldest: int) -> None:
        """Give a version of the app the staged definition, or the one of the version that it copies."""
        if copy_of:
            self.definitions[number] = self.definitions[copy_of]
        else:
            self.definitions[number] = self.definition if self.staged is None else self.staged
            self.staged = None
        for expired in [n for n in self.definitions if n < oldest]:
            del self.definitions[expired]

    def publish(self, number: int) -> None:
        """Make the definition of that version the current one."""
        self.definition = self.definitions[number]
        self.removed = False
        self.revision += 1
        self.rescale(None)

    def rescale(self, settings: api_pb2.AutoscalerSettings | None) -> None:
        """Apply the settings of ``update_autoscaler``; None resets them."""
        if settings is None:
            self.autoscaler = api_pb2.AutoscalerSettings()
        else:
            self.autoscaler.MergeFrom(settings)
        self._scaling = None

    def scaling(self, default_window: float) -> Scaling:
        """Return how many containers there may be and how long they may be idle.

        ``update_autoscaler`` overrides the definition. The result is cached: it is needed for each input.
        """
        revision = self.current_revision
        if self._scaling is None or self._scaling[:2] != (revision, default_window):
            self._scaling = (revision, default_window, self._effective_scaling(default_window))
        return self._scaling[2]

    def _effective_scaling(self, default_window: float) -> Scaling:
        settings = api_pb2.AutoscalerSettings()
        settings.CopyFrom(self.spec.autoscaler_settings)
        settings.MergeFrom(self.autoscaler)
        # Each of these is sent twice: as a setting, and as a field of its own for older servers.
        if not settings.HasField("min_containers"):
            settings.min_containers = self.spec.warm_pool_size
        if not settings.HasField("max_containers"):
            settings.max_containers = self.spec.concurrency_limit
        if not settings.HasField("buffer_containers"):
            settings.buffer_containers = self.spec._experimental_buffer_containers
        window = settings.scaledown_window or self.spec.task_idle_timeout_secs
        settings.scaledown_window = window or max(round(default_window), 1)
        return Scaling(
            # An app may have any number of variants: containers would be kept for each.
            min_containers=settings.min_containers if self.parent is None else self.autoscaler.min_containers,
            max_containers=settings.max_containers,
            buffer_containers=settings.buffer_containers,
            scaledown_window=window or default_window,
            settings=settings,
        )

    def _effective(self) -> api_pb2.Function:
        if self.parent is None:
            return self.definition
        if self.pinned:
            return self.parent.definitions[self.pinned]
        spec = api_pb2.Function()
        spec.CopyFrom(self.parent.spec)
        if self.options is not None:
            apply_options(spec, self.options)
        return spec

    def handle_metadata(self, definition: api_pb2.Function | None = None) -> api_pb2.FunctionHandleMetadata:
        spec = self.spec if definition is None else definition
        metadata = message(
            api_pb2.FunctionHandleMetadata,
            function_name=spec.function_name,
            function_type=spec.function_type,
            is_method=spec.is_method,
            definition_id=self.definition_id,
            class_parameter_info=spec.class_parameter_info,
            function_schema=spec.function_schema,
            supported_input_formats=spec.supported_input_formats,
            supported_output_formats=spec.supported_output_formats,
            app_id=self.app.app_id,
            base_function_id=self.root.object_id if self.parent is not None else "",
        )
        for name, method in spec.method_definitions.items():
            metadata.method_handle_metadata[name].CopyFrom(
                message(
                    api_pb2.FunctionHandleMetadata,
                    function_name=method.function_name,
                    function_type=method.function_type,
                    is_method=True,
                    use_method_name=name,
                    definition_id=self.definition_id,
                    function_schema=method.function_schema,
                    supported_input_formats=method.supported_input_formats,
                    supported_output_formats=method.supported_output_formats,
                    app_id=self.app.app_id,
                )
            )
        return metadata

    def data(self, definition: api_pb2.Function | None = None) -> api_pb2.FunctionData:
        """Return the definition as FunctionData; the SDK expects at least one ranked function."""
        spec = self.spec if definition is None else definition
        fields = {
            f.name: getattr(spec, f.name)
            for f in api_pb2.FunctionData.DESCRIPTOR.fields
            if f.name in api_pb2.Function.DESCRIPTOR.fields_by_name and f.name != "ranked_functions"
            if optional(spec, f.name) is not None
        }
        data = message(api_pb2.FunctionData, **fields)
        data.ranked_functions.add(rank=0, function=spec)
        return data


def apply_options(spec: api_pb2.Function, options: api_pb2.FunctionOptions) -> None:
    """Apply the options of ``with_options`` to the definition; other fields stay."""
    if options.replace_secret_ids:
        spec.ClearField("secret_ids")
    spec.secret_ids.extend(options.secret_ids)
    if options.replace_volume_mounts:
        spec.ClearField("volume_mounts")
    spec.volume_mounts.extend(options.volume_mounts)
    spec.mount_ids.extend(options.mount_ids)
    if options.replace_cloud_bucket_mounts:
        spec.ClearField("cloud_bucket_mounts")
    spec.cloud_bucket_mounts.extend(options.cloud_bucket_mounts)
    if options.HasField("resources"):
        spec.resources.MergeFrom(options.resources)
    if options.HasField("retry_policy"):
        spec.retry_policy.CopyFrom(options.retry_policy)
    for option in options.DESCRIPTOR.fields:
        target = _RENAMED_OPTIONS.get(option.name, option.name)
        if option.name in _SPECIAL_OPTIONS or target not in spec.DESCRIPTOR.fields_by_name:
            continue
        value = optional(options, option.name)
        if not value:
            continue
        if option.message_type is not None:
            getattr(spec, target).CopyFrom(value)
        else:
            setattr(spec, target, value)
        if option.name in _AUTOSCALER_OPTIONS:
            setattr(spec.autoscaler_settings, _AUTOSCALER_OPTIONS[option.name], value)
