"""``@task.modal_function``: a Python function whose return value is the arguments of a Modal Function's call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, task_decorator_factory

from modalflow.errors import ConfigError
from modalflow.operators.modal_function import ModalFunctionOperator


class _ModalFunctionTask(DecoratedOperator, ModalFunctionOperator):
    """The operator of ``@task.modal_function``."""

    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *ModalFunctionOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **ModalFunctionOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.modal_function"
    overwrite_rtif_after_execution = True

    def execute(self, context: Any) -> Any:
        """Run the decorated function, and call the Modal Function with its return value."""
        # Not that of DecoratedOperator, which returns the function's value.
        return self._start(context)

    def _arguments(self, context: Any) -> tuple[list[Any], dict[str, Any]]:
        function = self.python_callable
        returned = function(*self.op_args, **_named(function, len(self.op_args), {**context, **self.op_kwargs}))
        if isinstance(returned, tuple):
            self.function_args = returned
        elif isinstance(returned, Mapping):
            self.function_kwargs = {**(self.function_kwargs or {}), **returned}
        elif returned is not None:
            raise ConfigError(
                f"The return value of @task.modal_function {self.task_id!r}",
                returned,
                "the arguments of the call: a dict of keyword arguments, or a tuple; for one argument, (value,)",
            )
        return super()._arguments(context)


def _named(function: Callable[..., Any], positional: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the given values that a function has parameters for: it can ask for parts of the context."""
    # Airflow's own helper has another place in each version.
    parameters = list(inspect.signature(function).parameters.values())[positional:]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return dict(given)
    return {parameter.name: given[parameter.name] for parameter in parameters if parameter.name in given}


def modal_function_task(
    python_callable: Callable[..., Any] | None = None, *, multiple_outputs: bool = False, **kwargs: Any
) -> TaskDecorator:
    """Return the decorator ``@task.modal_function(app_name=…, function_name=…)``.

    The decorated function runs in the task, and returns the arguments for the deployed Function: a dict of keyword
    arguments, or a tuple. The task's result is that of the deployed Function; with ``multiple_outputs``, a dict becomes
    an XCom for each key. Takes every argument of ``ModalFunctionOperator``.
    """
    # Airflow would infer multiple_outputs from the function's annotation, but that is of the arguments.
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=_ModalFunctionTask,
        **kwargs,
    )
