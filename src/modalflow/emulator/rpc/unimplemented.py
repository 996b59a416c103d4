"""The errors for RPCs without a handler: each one names the action of the user, and not only the RPC.

Owns the table. A test finds every RPC without a handler here.
"""

from __future__ import annotations

from collections.abc import Mapping

_OTHER_SDK = "The request of this version of Modal's SDK"
_SANDBOX = "A Sandbox (modal.Sandbox, or `modal shell` without a running container)"
_SERVER = "A server (`@app.server`, modal.experimental's Flash)"
_STATISTICS = "Reading statistics and metrics"
_INPUT_PLANE = "Calling a function over Modal's input plane"
_WORKSPACE = "Reading or changing the settings, members and bills of a workspace"

#: The beginning of the name of an RPC, or all of it → the action of the user. The longest match counts.
ACTIONS: Mapping[str, str] = {
    "AppDeploy": _OTHER_SDK,
    "AppGetObjects": _OTHER_SDK,
    "AppGetTimeRangeStats": _STATISTICS,
    "AppLookup": _OTHER_SDK,
    "AppSetObjects": _OTHER_SDK,
    "Attempt": _INPUT_PLANE,
    "AuditLog": "Reading audit logs",
    "CliCommandSuggest": "Suggesting a command for a mistyped one",
    "Cluster": "A clustered function (modal.experimental.clustered)",
    "ContainerExec": "`modal container exec`",
    "ContainerFilesystemExec": "Reading or writing the files of a container from outside",
    "ContainerLog": _OTHER_SDK,
    "ContainerReloadVolumes": "Reloading the Volumes of a container from outside",
    "ContainerServerLifecycleReady": _SERVER,
    "CurlGetAuthToken": "`modal curl`",
    "Domain": "A custom domain",
    "Endpoint": "`modal endpoint`",
    "Environment": "Reading or changing roles, budgets and bills of an environment",
    "Flash": _SERVER,
    "FunctionAsyncInvoke": _OTHER_SDK,
    "FunctionBlobGet": _OTHER_SDK,
    "FunctionCallCount": "Searching and counting the calls of a function (`modal function`)",
    "FunctionCallFetch": "Searching and counting the calls of a function (`modal function`)",
    "FunctionCallGetDataIn": "Sending data to a function that runs",
    "FunctionGetFlashAuthToken": _SERVER,
    "FunctionGetMetrics": _STATISTICS,
    "FunctionGetSerialized": _OTHER_SDK,
    "FunctionGetTimeRangeStats": _STATISTICS,
    "FunctionListVariants": "Listing the variants of a function",
    "FunctionRetryInputs": "A retry by the client (the local control plane retries inputs itself)",
    "FunctionStartPtyShell": "An interactive function (modal.interact, `modal run --interactive`)",
    "Map": _INPUT_PLANE,
    "MetricsGetInfo": _STATISTICS,
    "Notebook": "A notebook on Modal",
    "PersistentSandbox": _SANDBOX,
    "Proxy": "A Proxy (modal.Proxy; containers here have the addresses of this machine)",
    "Sandbox": _SANDBOX,
    "Server": "`modal server`",
    "ServiceUser": "Managing service users",
    "SharedVolume": "A network file system (modal.NetworkFileSystem, `modal nfs`; use a Volume instead)",
    "TaskClusterHello": "A clustered function (modal.experimental.clustered)",
    "TaskCurrentInputs": _OTHER_SDK,
    "TaskGetCommandRouterAccess": "`modal container exec`, and `modal shell` in a running container,",
    "TemplateList": "Listing templates",
    "Token": "Managing tokens (`modal token`, `modal setup`; the local control plane prints its only token)",
    "UserGroup": _WORKSPACE,
    "VolumeGetFile": _OTHER_SDK,
    "WebhookToken": "Managing the tokens of web endpoints",
    "Workspace": _WORKSPACE,
    "WorkspaceDashboardUrlGet": "`modal dashboard`",
}


def refusal(rpc: str) -> str:
    """Return the text of the error for an RPC without a handler."""
    fitting = [beginning for beginning in ACTIONS if rpc.startswith(beginning)]
    action = ACTIONS[max(fitting, key=len)] if fitting else _OTHER_SDK
    verb = "are" if action.endswith(",") else "is"
    return f"{action} {verb} not supported by the local control plane yet ({rpc})"
