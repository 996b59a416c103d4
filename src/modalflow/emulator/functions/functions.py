"""The functions and classes of apps: made by a deployment, found by name, bound to options and parameters.

Owns which ones exist. A deployment stages definitions; publishing the app makes them current, all at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator.apps.app import App
from modalflow.emulator.apps.apps import Apps
from modalflow.emulator.apps.version import KEPT_VERSIONS, Version
from modalflow.emulator.definitions.definition_check import refuse_unsupported, warnings_of
from modalflow.emulator.functions.function import Function
from modalflow.emulator.ids import new_id
from modalflow.emulator.rpc.idempotency import CHANGE, READ
from modalflow.emulator.rpc.service import Caller, Service, rpc
from modalflow.emulator.rpc.wire import message, optional
from modalflow.emulator.services.cloud_buckets import check_mount
from modalflow.emulator.state.journal import Journal, Table
from modalflow.emulator.state.records import Record


@dataclass(eq=False)
class Class:
    """A class of an app. Its calls go to the function ``<tag>.*``, with all its methods."""

    app: App
    object_id: str = field(default_factory=lambda: new_id("cs"))


_RECORD = Record(Function, without=("app", "parent", "definitions", "backlog", "building"))


def _encode(function: Function) -> dict[str, Any]:
    return _RECORD.encode(function) | {"parent_id": function.parent.object_id if function.parent is not None else ""}


class Functions(Service):
    """The RPCs about the definitions of functions and classes."""

    def __init__(self, apps: Apps, journal: Journal, *, in_gvisor: bool = False) -> None:
        """``in_gvisor``: containers run in gVisor, which gives some options their effect."""
        self._apps, self._in_gvisor = apps, in_gvisor
        self._by_id: dict[str, Function] = {}
        self._classes: dict[str, Class] = {}
        self._variants: dict[tuple[str, bytes, bytes], Function] = {}
        self._pinned: dict[tuple[str, int], Function] = {}
        self._records = journal.table("functions", _encode)
        self._definitions = journal.table("definitions", api_pb2.Function.SerializeToString)
        self._class_records: Table[Class] = journal.table("classes", lambda _class: None)
        self._restore()

    def __iter__(self) -> Iterator[Function]:
        return iter(self._by_id.values())

    def save(self, function: Function) -> None:
        """Record the function as it is now."""
        self._records.put(function.app.app_id, function.object_id, function)

    def _restore(self) -> None:
        # Oldest first: a variant comes after its parent.
        for app_id, function_id, body in self._records.load():
            parent = self._by_id.get(body["parent_id"])
            function = _RECORD.decode(body, app=self._apps.get(app_id), parent=parent)
            self._by_id[function_id] = function
            if parent is not None and function.pinned:
                self._pinned[parent.object_id, function.pinned] = function
            elif parent is not None:
                self._variants[_key(parent, function.serialized_params, function.options)] = function
        for function_id, version, body in self._definitions.load():
            self._by_id[function_id].definitions[int(version)] = api_pb2.Function.FromString(body)
        for app_id, class_id, _ in self._class_records.load():
            self._classes[class_id] = Class(self._apps.get(app_id), class_id)

    def forget_app(self, app: App) -> None:
        """Forget the functions and classes of an app that no caller can ask about any more."""
        for function in [f for f in self._by_id.values() if f.app is app]:
            del self._by_id[function.object_id]
            self._definitions.discard_all(function.object_id)
        self._pinned = {k: p for k, p in self._pinned.items() if p.app is not app}
        self._classes = {i: c for i, c in self._classes.items() if c.app is not app}
        self._variants = {k: v for k, v in self._variants.items() if v.app is not app}
        self._records.discard_all(app.app_id)
        self._class_records.discard_all(app.app_id)

    def find(self, function_id: str) -> Function | None:
        return self._by_id.get(function_id)

    def get(self, function_id: str) -> Function:
        function = self._by_id.get(function_id)
        if function is None:
            raise GRPCError(Status.NOT_FOUND, f"Function {function_id!r} not found")
        return function

    def variants(self, root: Function) -> list[Function]:
        """Return the function and everything bound to it."""
        bound = [*self._pinned.values(), *self._variants.values()]
        return [root, *(v for v in bound if v.root is root)]

    def keep(self, version: Version) -> None:
        """Keep the staged definitions of a version's functions; NOT_FOUND, with nothing changed, for an unknown id."""
        for function in [self.get(function_id) for function_id in version.function_ids.values()]:
            before = set(function.definitions)
            function.keep(version.number, version.copy_of, version.number - KEPT_VERSIONS + 1)
            self._definitions.put(function.object_id, str(version.number), function.definitions[version.number])
            for expired in before - set(function.definitions):
                self._definitions.discard(function.object_id, str(expired))
            self.save(function)

    def publish(self, app: App, removed: set[str]) -> list[Function]:
        """Make the app's production version current; return every function that changed or left the app.

        ``removed`` are the ids that the app's layout no longer has.
        """
        changed: list[Function] = []
        for function_id in app.function_ids.values():
            function = self._by_id[function_id]
            function.publish(app.production)
            changed += self.variants(function)
        for function_id in removed:
            function = self._by_id[function_id]
            function.removed = True
            changed += self.variants(function)
        for function in changed:
            self.save(function)
        return changed

    def _find(self, app_name: str, environment_name: str, tag: str, version: int = 0) -> Function:
        app = self._apps.deployed(app_name, environment_name)
        parts = app.kept_version(version) if version else app
        function_id = parts.function_ids.get(tag)
        if function_id is None:
            if tag in parts.class_ids:
                raise GRPCError(Status.NOT_FOUND, f"{tag!r} is a class: use Cls.from_name", _class_lookup_details())
            of_version = f" in version v{version}" if version else ""
            raise GRPCError(Status.NOT_FOUND, f"App {app_name!r} has no function {tag!r}{of_version}")
        return self._pin(self._by_id[function_id], version)

    def _pin(self, function: Function, version: int) -> Function:
        """Return the function pinned to that version of its app; itself for 0."""
        if not version:
            return function
        root = function.root
        if version not in root.definitions:
            root.app.kept_version(version)
            raise GRPCError(Status.NOT_FOUND, f"Version v{version} of the app has no function {root.tag!r}")
        pinned = self._pinned.get((root.object_id, version))
        if pinned is None:
            pinned = Function(app=root.app, tag=root.tag, parent=root, pinned=version)
            self._by_id[pinned.object_id] = self._pinned[root.object_id, version] = pinned
            self.save(pinned)
        return pinned

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

    @rpc(repeat=CHANGE)
    async def FunctionPrecreate(
        self, request: api_pb2.FunctionPrecreateRequest, caller: Caller
    ) -> api_pb2.FunctionPrecreateResponse:
        app = self._apps.live(request.app_id)
        # Before an image is built for it, as far as the SDK describes the function this early.
        refuse_unsupported(request)
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
        function = self._existing_or_new(app, request.function_name, request.existing_function_id)
        if not function.revision:
            function.definition = sketch
        self.save(function)
        return api_pb2.FunctionPrecreateResponse(
            function_id=function.object_id, handle_metadata=function.handle_metadata(sketch)
        )

    @rpc(
        repeat=CHANGE,
        inferred=(
            "requests above the cores or memory of the machine are reduced to them, with a line in the log. "
            "Memory limits are measured five times a second. The bucket of a `CloudBucketMount` is a folder, "
            "and the credentials of the mount are ignored."
        ),
    )
    async def FunctionCreate(
        self, request: api_pb2.FunctionCreateRequest, caller: Caller
    ) -> api_pb2.FunctionCreateResponse:
        app = self._apps.live(request.app_id)
        refuse_unsupported(request)
        definition = api_pb2.Function()
        fallbacks: list[api_pb2.Resources] = []
        if request.HasField("function"):
            definition.CopyFrom(request.function)
        elif request.function_data.ranked_functions:
            # The SDK ranks the same function once for each GPU of a list (_functions.py, `ranked_functions`).
            ranked = sorted(request.function_data.ranked_functions, key=lambda each: each.rank)
            definition.CopyFrom(ranked[0].function)
            fallbacks = [each.function.resources for each in ranked[1:]]
        else:
            raise GRPCError(Status.INVALID_ARGUMENT, "FunctionCreate without a function")
        for mount in definition.cloud_bucket_mounts:
            check_mount(mount)
        function = self._existing_or_new(app, definition.function_name, request.existing_function_id)
        function.tag = definition.function_name
        function.staged = definition
        function.fallbacks = fallbacks
        function.definition_id = new_id("de")
        if not function.revision:
            function.definition = definition
        self.save(function)
        return message(
            api_pb2.FunctionCreateResponse,
            function_id=function.object_id,
            function=definition,
            function_data=function.data(definition),
            handle_metadata=function.handle_metadata(definition),
            server_warnings=warnings_of(function.tag, request, in_gvisor=self._in_gvisor),
        )

    @rpc(repeat=READ)
    async def FunctionGet(self, request: api_pb2.FunctionGetRequest, caller: Caller) -> api_pb2.FunctionGetResponse:
        version = optional(request, "app_version") or 0
        function = self._find(request.app_name, request.environment_name, request.object_tag, version)
        return message(
            api_pb2.FunctionGetResponse,
            function_id=function.object_id,
            handle_metadata=function.handle_metadata(),
            function=function.data(),
        )

    @rpc(repeat=READ)
    async def FunctionGetById(
        self, request: api_pb2.FunctionGetByIdRequest, caller: Caller
    ) -> api_pb2.FunctionGetByIdResponse:
        function = self.get(request.function_id)
        return api_pb2.FunctionGetByIdResponse(function=function.data(), handle_metadata=function.handle_metadata())

    @rpc(
        repeat=CHANGE,
        inferred="the same options and parameters share a variant and its containers, for all callers.",
    )
    async def FunctionBindParams(
        self, request: api_pb2.FunctionBindParamsRequest, caller: Caller
    ) -> api_pb2.FunctionBindParamsResponse:
        """Return the variant with these options and parameters; the same ones share a variant and its containers."""
        refuse_unsupported(request)
        options = request.function_options
        for mount in options.cloud_bucket_mounts:
            check_mount(mount)
        parent = self._pin(self.get(request.function_id), optional(options, "pinned_app_version") or 0)
        bound = options if request.HasField("function_options") else None
        params = request.serialized_params or parent.serialized_params
        key = _key(parent, params, bound)
        variant = self._variants.get(key)
        if variant is None:
            variant = Function(
                app=parent.app,
                tag=parent.tag,
                parent=parent,
                options=bound,
                serialized_params=params,
            )
            self._by_id[variant.object_id] = self._variants[key] = variant
            self.save(variant)
        return api_pb2.FunctionBindParamsResponse(
            bound_function_id=variant.object_id, handle_metadata=variant.handle_metadata()
        )

    @rpc(repeat=CHANGE)
    async def ClassCreate(self, request: api_pb2.ClassCreateRequest, caller: Caller) -> api_pb2.ClassCreateResponse:
        app = self._apps.live(request.app_id)
        refuse_unsupported(request)
        existing = self._classes.get(request.existing_class_id)
        if existing is None or existing.app is not app:
            existing = Class(app)
            self._classes[existing.object_id] = existing
            self._class_records.put(app.app_id, existing.object_id, existing)
        return api_pb2.ClassCreateResponse(class_id=existing.object_id, handle_metadata=api_pb2.ClassHandleMetadata())

    @rpc(repeat=READ)
    async def ClassGet(self, request: api_pb2.ClassGetRequest, caller: Caller) -> api_pb2.ClassGetResponse:
        app = self._apps.deployed(request.app_name, request.environment_name)
        version = optional(request, "app_version") or 0
        parts = app.kept_version(version) if version else app
        class_id = parts.class_ids.get(request.object_tag)
        if class_id is None:
            raise GRPCError(Status.NOT_FOUND, f"App {request.app_name!r} has no class {request.object_tag!r}")
        return api_pb2.ClassGetResponse(class_id=class_id, handle_metadata=api_pb2.ClassHandleMetadata())


def _key(parent: Function, params: bytes, options: api_pb2.FunctionOptions | None) -> tuple[str, bytes, bytes]:
    """Return the key of a variant."""
    return parent.object_id, params, b"" if options is None else options.SerializeToString(deterministic=True)


def _class_lookup_details() -> list[Message]:
    """Return the details by which the SDK recognises a lookup of a class as a function, if it knows that message."""
    kind = getattr(api_pb2, "FunctionLookupError", None)
    return [] if kind is None else [kind(reason=kind.REASON_CLASS_NAME_USED)]
