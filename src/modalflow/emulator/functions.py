"""Functions and classes: their definitions, the variants that options and parameters make of them, their handles.

Owns what a function is. A deployment stages definitions and publishing the app makes them current, all at once; what is
called and what runs belongs to calls.py and pools.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from google.protobuf.message import Message
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator.apps import App, Apps
from modalflow.emulator.ids import new_id
from modalflow.emulator.rpc import Caller, Service
from modalflow.emulator.wire import message, optional

#: Fields of FunctionOptions that replace a field of another name in Function; the rest have the same name in both.
_RENAMED_OPTIONS = {"buffer_containers": "_experimental_buffer_containers"}

#: Options that the definition has twice: as a field of its own for old clients, and among its autoscaler settings.
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
        "routing_region",
    }
)


@dataclass(frozen=True)
class Scaling:
    """What the autoscaler of a function goes by. ``max_containers`` 0 is any number."""

    min_containers: int
    max_containers: int
    scaledown_window: float
    settings: api_pb2.AutoscalerSettings


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
    """What ``update_autoscaler`` set: it lasts until the next deployment."""
    removed: bool = False
    _spec: tuple[int, api_pb2.Function] | None = None

    @property
    def root(self) -> Function:
        return self if self.parent is None else self.parent.root

    @property
    def current_revision(self) -> int:
        return self.root.revision

    @property
    def spec(self) -> api_pb2.Function:
        """The definition that new containers run, options applied."""
        revision = self.current_revision
        if self._spec is None or self._spec[0] != revision:
            self._spec = (revision, self._effective())
        return self._spec[1]

    @property
    def callable_reason(self) -> str:
        """Why the function cannot be called, empty if it can."""
        if self.app.is_over:
            return f"App {self.app.app_id} of function {self.tag!r} is stopped"
        if self.root.removed:
            return f"Function {self.tag!r} is no longer part of app {self.app.app_id}"
        return ""

    def publish(self) -> None:
        """Make the staged definition the current one."""
        if self.staged is not None:
            self.definition, self.staged = self.staged, None
        self.revision += 1
        self.autoscaler = api_pb2.AutoscalerSettings()

    def scaling(self, default_window: float) -> Scaling:
        """How many containers there may be, and how long idle: as defined, or as ``update_autoscaler`` said since."""
        settings = api_pb2.AutoscalerSettings()
        settings.CopyFrom(self.spec.autoscaler_settings)
        settings.MergeFrom(self.autoscaler)
        return Scaling(
            # A variant is one of many: keeping containers of each would never end.
            min_containers=settings.min_containers if self.parent is None else self.autoscaler.min_containers,
            max_containers=settings.max_containers or self.spec.concurrency_limit,
            scaledown_window=settings.scaledown_window or self.spec.task_idle_timeout_secs or default_window,
            settings=settings,
        )

    def _effective(self) -> api_pb2.Function:
        if self.parent is None:
            return self.definition
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
        """The same as the SDK describes functions with; it insists on at least one ranked function."""
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
    """Change the definition as ``with_options`` asks; what it does not name stays."""
    if options.replace_secret_ids:
        spec.ClearField("secret_ids")
    spec.secret_ids.extend(options.secret_ids)
    if options.replace_volume_mounts:
        spec.ClearField("volume_mounts")
    spec.volume_mounts.extend(options.volume_mounts)
    spec.mount_ids.extend(options.mount_ids)
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


@dataclass(eq=False)
class Class:
    """A class of an app. Its calls go to the function ``<tag>.*``, which has all its methods."""

    app: App
    object_id: str = field(default_factory=lambda: new_id("cs"))


class Functions(Service):
    """Answers the RPCs about functions and classes as definitions."""

    deduplicated = frozenset({"FunctionPrecreate", "FunctionCreate", "ClassCreate", "FunctionBindParams"})

    def __init__(self, apps: Apps) -> None:
        self._apps = apps
        self._by_id: dict[str, Function] = {}
        self._classes: dict[str, Class] = {}
        self._variants: dict[tuple[str, bytes, bytes], Function] = {}
        self.on_publish: list[Callable[[Function], None]] = []
        """Called for every function whose definition changed or that left its app, after an app was published."""
        self.volume_metadata: Callable[[str], api_pb2.VolumeMetadata] = lambda _id: api_pb2.VolumeMetadata()
        apps.on_publish.append(self._published)

    def get(self, function_id: str) -> Function:
        function = self._by_id.get(function_id)
        if function is None:
            raise GRPCError(Status.NOT_FOUND, f"Function {function_id!r} not found")
        return function

    def variants(self, root: Function) -> list[Function]:
        """The function and everything bound to it."""
        return [root, *(v for v in self._variants.values() if v.root is root)]

    def layout(self, app: App, dependencies: list[str] | None = None) -> api_pb2.AppLayout:
        """What the app consists of; ``dependencies`` are ids of further objects that a container will look for."""
        layout = api_pb2.AppLayout(function_ids=app.function_ids, class_ids=app.class_ids)
        for function_id in app.function_ids.values():
            layout.objects.add(
                object_id=function_id, function_handle_metadata=self._by_id[function_id].handle_metadata()
            )
        for class_id in app.class_ids.values():
            layout.objects.add(object_id=class_id, class_handle_metadata=api_pb2.ClassHandleMetadata())
        listed = {o.object_id for o in layout.objects}
        for object_id in dependencies or ():
            if object_id in listed:
                continue
            listed.add(object_id)
            if object_id.startswith("vo-"):
                layout.objects.add(object_id=object_id, volume_metadata=self.volume_metadata(object_id))
            else:
                layout.objects.add(object_id=object_id)
        return layout

    def _published(self, app: App, removed: set[str]) -> None:
        changed: list[Function] = []
        for function_id in app.function_ids.values():
            function = self._by_id[function_id]
            function.publish()
            changed += self.variants(function)
        for function_id in removed:
            function = self._by_id[function_id]
            function.removed = True
            changed += self.variants(function)
        for function in changed:
            for listener in self.on_publish:
                listener(function)

    def _find(self, app_name: str, environment_name: str, tag: str) -> Function:
        app = self._apps.deployed(app_name, environment_name)
        function_id = app.function_ids.get(tag)
        if function_id is None:
            if tag in app.class_ids:
                raise GRPCError(Status.NOT_FOUND, f"{tag!r} is a class: use Cls.from_name", _class_lookup_details())
            raise GRPCError(Status.NOT_FOUND, f"App {app_name!r} has no function {tag!r}")
        return self._by_id[function_id]

    def _existing_or_new(self, app: App, tag: str, existing_id: str) -> Function:
        if existing_id:
            function = self.get(existing_id)
            if function.app is not app:
                raise GRPCError(Status.INVALID_ARGUMENT, f"Function {existing_id!r} belongs to another app")
            function.removed = False
            return function
        function = Function(app=app, tag=tag)
        self._by_id[function.object_id] = function
        return function

    async def FunctionPrecreate(
        self, request: api_pb2.FunctionPrecreateRequest, caller: Caller
    ) -> api_pb2.FunctionPrecreateResponse:
        app = self._apps.live(request.app_id)
        function = self._existing_or_new(app, request.function_name, request.existing_function_id)
        sketch = message(
            api_pb2.Function,
            function_name=request.function_name,
            function_type=request.function_type,
            webhook_config=request.webhook_config,
            method_definitions=request.method_definitions,
            function_schema=request.function_schema,
            supported_input_formats=request.supported_input_formats,
            supported_output_formats=request.supported_output_formats,
        )
        if not function.revision:
            function.definition = sketch
        return api_pb2.FunctionPrecreateResponse(
            function_id=function.object_id, handle_metadata=function.handle_metadata(sketch)
        )

    async def FunctionCreate(
        self, request: api_pb2.FunctionCreateRequest, caller: Caller
    ) -> api_pb2.FunctionCreateResponse:
        app = self._apps.live(request.app_id)
        definition = api_pb2.Function()
        if request.HasField("function"):
            definition.CopyFrom(request.function)
        elif request.function_data.ranked_functions:
            # Alternatives differ in their GPU, which this machine pretends to have: the first choice is as good as any.
            definition.CopyFrom(request.function_data.ranked_functions[0].function)
        else:
            raise GRPCError(Status.INVALID_ARGUMENT, "FunctionCreate without a function")
        refuse_unsupported(definition)
        function = self._existing_or_new(app, definition.function_name, request.existing_function_id)
        function.tag = definition.function_name
        function.staged = definition
        function.definition_id = new_id("de")
        if not function.revision:
            function.definition = definition
        return message(
            api_pb2.FunctionCreateResponse,
            function_id=function.object_id,
            function=definition,
            function_data=function.data(definition),
            handle_metadata=function.handle_metadata(definition),
        )

    async def FunctionGet(self, request: api_pb2.FunctionGetRequest, caller: Caller) -> api_pb2.FunctionGetResponse:
        if optional(request, "app_version"):
            raise GRPCError(Status.UNIMPLEMENTED, "The local control plane keeps only the newest version of an app")
        function = self._find(request.app_name, request.environment_name, request.object_tag)
        return message(
            api_pb2.FunctionGetResponse,
            function_id=function.object_id,
            handle_metadata=function.handle_metadata(),
            function=function.data(),
        )

    async def FunctionGetById(
        self, request: api_pb2.FunctionGetByIdRequest, caller: Caller
    ) -> api_pb2.FunctionGetByIdResponse:
        function = self.get(request.function_id)
        return api_pb2.FunctionGetByIdResponse(function=function.data(), handle_metadata=function.handle_metadata())

    async def FunctionBindParams(
        self, request: api_pb2.FunctionBindParamsRequest, caller: Caller
    ) -> api_pb2.FunctionBindParamsResponse:
        """Return the variant with these options and parameters: the same one, and its containers, for the same ones."""
        parent = self.get(request.function_id)
        options = request.function_options
        if optional(options, "pinned_app_version"):
            raise GRPCError(Status.UNIMPLEMENTED, "The local control plane keeps only the newest version of an app")
        key = (
            parent.object_id,
            request.serialized_params,
            options.SerializeToString(deterministic=True) if request.HasField("function_options") else b"",
        )
        variant = self._variants.get(key)
        if variant is None:
            variant = Function(
                app=parent.app,
                tag=parent.tag,
                parent=parent,
                options=options if request.HasField("function_options") else None,
                serialized_params=request.serialized_params or parent.serialized_params,
            )
            self._by_id[variant.object_id] = self._variants[key] = variant
        return api_pb2.FunctionBindParamsResponse(
            bound_function_id=variant.object_id, handle_metadata=variant.handle_metadata()
        )

    async def AppGetLayout(self, request: api_pb2.AppGetLayoutRequest, caller: Caller) -> api_pb2.AppGetLayoutResponse:
        return api_pb2.AppGetLayoutResponse(app_layout=self.layout(self._apps.get(request.app_id)))

    async def ClassCreate(self, request: api_pb2.ClassCreateRequest, caller: Caller) -> api_pb2.ClassCreateResponse:
        app = self._apps.live(request.app_id)
        existing = self._classes.get(request.existing_class_id)
        if existing is None or existing.app is not app:
            existing = Class(app)
            self._classes[existing.object_id] = existing
        return api_pb2.ClassCreateResponse(class_id=existing.object_id, handle_metadata=api_pb2.ClassHandleMetadata())

    async def ClassGet(self, request: api_pb2.ClassGetRequest, caller: Caller) -> api_pb2.ClassGetResponse:
        app = self._apps.deployed(request.app_name, request.environment_name)
        class_id = app.class_ids.get(request.object_tag)
        if class_id is None:
            raise GRPCError(Status.NOT_FOUND, f"App {request.app_name!r} has no class {request.object_tag!r}")
        return api_pb2.ClassGetResponse(class_id=class_id, handle_metadata=api_pb2.ClassHandleMetadata())


def _class_lookup_details() -> list[Message]:
    """What the SDK recognises a lookup of a class as a function by, where it knows such a message."""
    kind = getattr(api_pb2, "FunctionLookupError", None)
    return [] if kind is None else [kind(reason=kind.REASON_CLASS_NAME_USED)]


#: Field of a definition → what it asks for. A function that needs one of these must not deploy and then not do it.
_UNSUPPORTED = {
    "cloud_bucket_mounts": "cloud bucket mounts",
    "shared_volume_mounts": "network file systems",
    "proxy_id": "proxies",
    "is_server": "servers",
    "schedule": "schedules",
    "is_builder_function": "functions that build images (Image.run_function)",
}


def refuse_unsupported(definition: api_pb2.Function) -> None:
    """Raise UNIMPLEMENTED for a definition that asks for what the local control plane does not do."""
    for name, what in _UNSUPPORTED.items():
        field = definition.DESCRIPTOR.fields_by_name.get(name)
        if field is None:
            continue
        if definition.HasField(name) if field.has_presence else getattr(definition, name):  # type: ignore[arg-type]
            raise GRPCError(Status.UNIMPLEMENTED, f"The local control plane does not have {what}")
    if definition.webhook_config.type or any(m.webhook_config.type for m in definition.method_definitions.values()):
        raise GRPCError(Status.UNIMPLEMENTED, "The local control plane does not have web endpoints")
    if definition._experimental_group_size > 1:
        raise GRPCError(Status.UNIMPLEMENTED, "The local control plane does not have clustered functions")
