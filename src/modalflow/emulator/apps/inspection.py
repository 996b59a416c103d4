"""Questions about apps, functions, tokens and the workspace, mostly from ``modal``'s own commands.

Owns answers that change nothing; other services own their content.
"""

from __future__ import annotations

import difflib

from google.protobuf.empty_pb2 import Empty
from modal_proto import api_pb2

from modalflow.emulator.apps.apps import Apps
from modalflow.emulator.containers.pools import Pools
from modalflow.emulator.functions.functions import Functions
from modalflow.emulator.rpc.idempotency import READ
from modalflow.emulator.rpc.service import Caller, Service, rpc
from modalflow.emulator.rpc.wire import message
from modalflow.emulator.services.clients import WORKSPACE
from modalflow.emulator.services.environments import Environments

#: The ids of the only user and of the workspace, in Modal's form.
USER_ID = "us-local"
WORKSPACE_ID = "ac-local"

#: Inferred: the SDK shows every suggestion that it gets.
MOST_SUGGESTIONS = 10


class Inspection(Service):
    """The RPCs that only inspect."""

    def __init__(
        self, apps: Apps, functions: Functions, pools: Pools, environments: Environments, token_id: str
    ) -> None:
        self._apps, self._functions, self._pools, self._environments = apps, functions, pools, environments
        self._token_id = token_id

    @rpc(repeat=READ)
    async def AppGetInfo(self, request: api_pb2.AppGetInfoRequest, caller: Caller) -> api_pb2.AppGetInfoResponse:
        app = self._apps.get(request.app_id)
        answer = message(api_pb2.AppGetInfoResponse, info=app.handle_metadata)
        for tag, function_id in app.function_ids.items():
            if "functions" in answer.info.DESCRIPTOR.fields_by_name:
                answer.info.functions[tag] = function_id
            gpu = self._functions.get(function_id).spec.resources.gpu_config
            summary = answer.function_info_summaries[function_id]
            if gpu.count:
                summary.gpu_config.append(gpu)
        return answer

    @rpc(repeat=READ)
    async def FunctionGetSchedulingParams(
        self, request: api_pb2.FunctionGetSchedulingParamsRequest, caller: Caller
    ) -> api_pb2.FunctionGetSchedulingParamsResponse:
        function = self._functions.get(request.function_id)
        return message(
            api_pb2.FunctionGetSchedulingParamsResponse,
            autoscaler_configuration=message(
                api_pb2.AutoscalerConfiguration,
                settings=self._pools.scaling(function).settings,
                static_settings=function.spec.autoscaler_settings,
                override_settings=function.autoscaler,
            ),
        )

    @rpc(repeat=READ)
    async def EnvironmentGetRoles(
        self, request: api_pb2.EnvironmentGetRolesRequest, caller: Caller
    ) -> api_pb2.EnvironmentGetRolesResponse:
        """Return the only user, who may do everything."""
        environment = self._environments.by_id(request.environment_id)
        answer = message(api_pb2.EnvironmentGetRolesResponse, name=environment.name, created_at=environment.created_at)
        answer.principal_roles.append(
            message(
                api_pb2.EnvironmentGetRolesResponse.Principal,
                user_id=USER_ID,
                user_name=WORKSPACE,
                role_str="contributor",
                role=api_pb2.ENVIRONMENT_ROLE_CONTRIBUTOR,
            )
        )
        return answer

    @rpc(repeat=READ)
    async def TokenInfoGet(self, request: api_pb2.TokenInfoGetRequest, caller: Caller) -> api_pb2.TokenInfoGetResponse:
        return message(
            api_pb2.TokenInfoGetResponse,
            token_id=self._token_id,
            token_name="local control plane",  # noqa: S106 (a name)
            workspace_id=WORKSPACE_ID,
            workspace_name=WORKSPACE,
            user_identity=api_pb2.UserIdentity(user_id=USER_ID, username=WORKSPACE),
        )

    @rpc(repeat=READ)
    async def WorkspaceMembersList(self, request: Empty, caller: Caller) -> api_pb2.WorkspaceMembersListResponse:
        owner = message(
            api_pb2.WorkspaceMembersListItem,
            user_id=USER_ID,
            member_displayname=WORKSPACE,
            member_role=api_pb2.MEMBER_ROLE_OWNER,
        )
        return api_pb2.WorkspaceMembersListResponse(members=[owner])

    @rpc(repeat=READ)
    async def ObjectSuggest(
        self, request: api_pb2.ObjectSuggestRequest, caller: Caller
    ) -> api_pb2.ObjectSuggestResponse:
        """Return names similar to one that was not found. How similar is inferred."""
        environment = self._environments.resolve(request.environment_name)
        apps = [a for a in self._apps if a.name and a.environment == environment and not a.is_over]
        known: dict[str, api_pb2.ObjectSuggestion] = {}
        if request.kind == request.OBJECT_SUGGEST_KIND_APP:
            known = {a.name: api_pb2.ObjectSuggestion(object_name=a.name) for a in apps}
        elif request.kind == request.OBJECT_SUGGEST_KIND_FUNCTION:
            known = {
                f"{a.name}/{tag}": api_pb2.ObjectSuggestion(app_name=a.name, object_name=tag)
                for a in apps
                for tag in a.function_ids
            }
        most = min(request.limit or MOST_SUGGESTIONS, MOST_SUGGESTIONS)
        return api_pb2.ObjectSuggestResponse(
            suggestions=[known[name] for name in difflib.get_close_matches(request.query, known, n=max(most, 1))]
        )
