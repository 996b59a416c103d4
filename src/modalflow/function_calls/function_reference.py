"""A deployed Function or method, by its names: its lookup, and the spawn of a call."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import modal
from modal import exception, experimental

from modalflow.control_plane import ControlPlane, in_environment
from modalflow.errors import ConfigError, FunctionCallError, NotDeployedError, a_known_name
from modalflow.function_calls.cost_estimate import size_of
from modalflow.support.described import words_of

#: Names of an app that an error lists.
_MOST_NAMES = 30


@dataclass(frozen=True)
class Spawned:
    """A new function call."""

    function_call_id: str
    size: dict[str, Any] | None
    """The resources that its Function reserves; None if Modal's SDK does not report them."""


@dataclass(frozen=True)
class FunctionReference:
    """The names under which a Function is deployed."""

    app_name: str
    function_name: str
    """``function``, or ``Class.method``."""
    class_parameters: Mapping[str, Any] = field(default_factory=dict)
    """The ``modal.parameter()`` values of the class."""

    @property
    def label(self) -> str:
        return f"{self.app_name}/{self.function_name}"

    def spawn(self, control_plane: ControlPlane, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Spawned:
        """Spawn a call. Blocks.

        Raises NotDeployedError for unknown names, ConfigError for impossible arguments, FunctionCallError for a
        Function that cannot be spawned, and the SDK's exceptions for a failing Modal.
        """
        try:
            function = self._function(control_plane)
            call = function.spawn(*args, **kwargs)
        except (exception.NotFoundError, AttributeError) as error:
            raise self._not_deployed(control_plane, error) from error
        except exception.InvalidError as error:
            raise FunctionCallError(
                f"Modal cannot spawn {self.label}: {words_of(error).rstrip('.')}. A task can call a Function or a "
                "method that returns a value, no generator and no web endpoint."
            ) from error
        except (pickle.PicklingError, TypeError, exception.SerializationError) as error:
            raise ConfigError(
                f"An argument of {self.label}", words_of(error), "values that can be pickled, such as str, int or dict"
            ) from error
        return Spawned(str(call.object_id), self._size(function))

    def _function(self, control_plane: ControlPlane) -> Any:
        scope = control_plane.scope()
        class_name, dot, method = self.function_name.rpartition(".")
        if not dot:
            function: Any = modal.Function.from_name(self.app_name, self.function_name, **scope)
            function.hydrate()
            return function
        cls: Any = modal.Cls.from_name(self.app_name, class_name, **scope)
        # Only a hydrated class knows its methods.
        cls.hydrate()
        return getattr(cls(**self.class_parameters), method)

    def _size(self, function: Any) -> dict[str, Any] | None:
        if "." in self.function_name:
            return None
        # Before SDK 1.6, `info` is another attribute, which asserts that the function is defined here.
        with contextlib.suppress(exception.Error, ValueError, AssertionError, AttributeError, TypeError):
            return size_of(function.info())
        return None

    def _not_deployed(self, control_plane: ControlPlane, error: BaseException) -> NotDeployedError:
        names = self._names_in_app(control_plane)
        where = in_environment(control_plane.environment, error)
        if names is None:
            return NotDeployedError(
                f"Modal has no app {self.app_name!r}{where}: {words_of(error).rstrip('.')}. Deploy it with `modal "
                "deploy`, or correct app_name or environment_name; `modal app list` prints the apps of an environment."
            )
        return NotDeployedError(
            f"Modal app {self.app_name!r} has no {self.function_name!r}{where}: {words_of(error).rstrip('.')}. "
            f"Expected {a_known_name(self.function_name, names[:_MOST_NAMES])}, or Class.method. Correct "
            "function_name, or deploy the app again."
        )

    def _names_in_app(self, control_plane: ControlPlane) -> list[str] | None:
        """Return the names of the app's Functions and classes; None if there is no such app, or no answer."""
        try:
            found: Any = experimental.get_app_objects(
                self.app_name, environment_name=control_plane.environment, client=control_plane.client
            )
        except Exception:  # noqa: BLE001  An experimental interface of Modal's, for a better error.
            return None
        return sorted(map(str, found))
