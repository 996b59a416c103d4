"""The layout of an app: its functions, classes and the objects that they refer to, as containers and clients load it.

Owns the message. Which functions an app has is Functions' matter.
"""

from __future__ import annotations

from collections.abc import Iterable

from modal_proto import api_pb2

from modalflow.emulator.apps.app import App
from modalflow.emulator.apps.apps import Apps
from modalflow.emulator.functions.functions import Functions
from modalflow.emulator.rpc.idempotency import READ
from modalflow.emulator.rpc.service import Caller, Service, rpc
from modalflow.emulator.volumes.volumes import Volumes


class Layouts(Service):
    """The RPC about layouts; containers are started with a layout too."""

    def __init__(self, apps: Apps, functions: Functions, volumes: Volumes) -> None:
        self._apps, self._functions, self._volumes = apps, functions, volumes

    def layout(self, app: App, dependencies: Iterable[str] = (), version: int = 0) -> api_pb2.AppLayout:
        """Return what the app consists of, or did in a version.

        ``dependencies`` are ids of other objects that a container looks up. A function of a version calls the others of
        its app as they are now. Inferred: their ids stay the same over all versions.
        """
        parts = app.versions[version] if version else app
        layout = api_pb2.AppLayout(function_ids=parts.function_ids, class_ids=parts.class_ids)
        for function_id in parts.function_ids.values():
            layout.objects.add(
                object_id=function_id, function_handle_metadata=self._functions.get(function_id).handle_metadata()
            )
        for class_id in parts.class_ids.values():
            layout.objects.add(object_id=class_id, class_handle_metadata=api_pb2.ClassHandleMetadata())
        listed = {o.object_id for o in layout.objects}
        for object_id in dependencies:
            if object_id in listed:
                continue
            listed.add(object_id)
            if object_id.startswith("vo-"):
                layout.objects.add(object_id=object_id, volume_metadata=self._volumes.metadata(object_id))
            else:
                layout.objects.add(object_id=object_id)
        return layout

    @rpc(repeat=READ)
    async def AppGetLayout(self, request: api_pb2.AppGetLayoutRequest, caller: Caller) -> api_pb2.AppGetLayoutResponse:
        return api_pb2.AppGetLayoutResponse(app_layout=self.layout(self._apps.get(request.app_id)))
