"""The replaced names of Modal's SDK. Imports nothing of the SDK."""

from __future__ import annotations

from typing import Final

from modalflow.support.replaced import ReplacedName

_FORKS: Final = "support.forks"
_LOCAL: Final = "emulator.sdk"

FIND_CLASS: Final = ReplacedName(
    "modal._serialization:Unpickler.find_class",
    "The SDK unpickles what containers wrote; within `plain_data_only()` it must import no name for that.",
    "protocol.plain_data",
)
PERSISTENT_LOAD: Final = ReplacedName(
    "modal._serialization:Unpickler.persistent_load",
    "The SDK unpickles what containers wrote; within `plain_data_only()` it must make no Modal object of it.",
    "protocol.plain_data",
)
LOAD: Final = ReplacedName(
    "modal._serialization:Unpickler.load",
    "Of many values, the SDK reads none if one is unreadable; a lenient `plain_data_only()` reads the others.",
    "protocol.plain_data",
)
RETRY_CONFIG: Final = ReplacedName(
    "modal._utils.grpc_utils:config",
    "The SDK waits out a rate limit within the call; its setting against that holds for the whole process.",
    "executor.modal_api.rate_limits",
)

# State with a reset in a forked child.
DEFAULT_CLIENT: Final = ReplacedName(
    "modal.client:_Client._client_from_env",
    "The default client waits for a thread that a forked child does not have; a LocalModal has a client of its own.",
    f"{_FORKS}, {_LOCAL}",
)
DEFAULT_CLIENT_LOCK: Final = ReplacedName(
    "modal.client:_Client._client_from_env_lock",
    "Another thread may hold it at the fork, while it makes the default client.",
    _FORKS,
)
HTTP_SESSION: Final = ReplacedName(
    "modal._utils.http_utils:ClientSessionRegistry._client_session",
    "The HTTP session of all transfers belongs to the parent's event loop.",
    _FORKS,
)
HTTP_SESSION_ACTIVE: Final = ReplacedName(
    "modal._utils.http_utils:ClientSessionRegistry._client_session_active",
    "The HTTP session of all transfers belongs to the parent's event loop.",
    _FORKS,
)
HTTP_UNREGISTER: Final = ReplacedName(
    "modal._utils.http_utils:ClientSessionRegistry._shutdown_unregister",
    "It would close the parent's HTTP session.",
    _FORKS,
    since="1.6",
)
OUTPUT_MANAGER: Final = ReplacedName(
    "modal._output.manager:_current_output_manager",
    "A display may be refreshed by a thread that a forked child does not have, under a lock.",
    _FORKS,
)
PICKLE_LOCK: Final = ReplacedName(
    "modal._vendor.cloudpickle:_DYNAMIC_CLASS_TRACKER_LOCK",
    "Another thread may hold it at the fork, while it pickles a class.",
    _FORKS,
)

# The SDK's defaults, set by a LocalModal.
CONFIG_PATH: Final = ReplacedName(
    "modal.config:user_config_path",
    "The SDK reads it at import; while a LocalModal runs, no profile of the user counts.",
    _LOCAL,
)
USER_CONFIG: Final = ReplacedName(
    "modal.config:_user_config",
    "The SDK reads it at import; while a LocalModal runs, no profile of the user counts.",
    _LOCAL,
)
PROFILE: Final = ReplacedName(
    "modal.config:_profile",
    "The SDK reads it at import; while a LocalModal runs, no profile of the user counts.",
    _LOCAL,
)
GET_CHANNEL: Final = ReplacedName(
    "modal.client:_Client._get_channel",
    "While a LocalModal runs, a call to any other server is refused.",
    _LOCAL,
)
IS_HYDRATED: Final = ReplacedName(
    "modal._object:_Object._is_hydrated",
    "A handle that the former default client looked up is looked up again by the new one.",
    _LOCAL,
    of_instances=True,
)
CLIENT_CLOSED: Final = ReplacedName(
    "modal.client:_Client._closed",
    "A client whose LocalModal has ended stays open, so that its handles report that.",
    _LOCAL,
    of_instances=True,
)
CLIENT_UNREGISTER: Final = ReplacedName(
    "modal.client:_Client._shutdown_unregister",
    "A released client must not be closed again at exit.",
    _LOCAL,
    since="1.6",
    of_instances=True,
)

#: All rows of this module.
ROWS: Final = tuple(row for row in list(globals().values()) if isinstance(row, ReplacedName))
