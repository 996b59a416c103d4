"""Operators of modalflow, for DAG files."""

from modalflow.operators.call_link import ModalFunctionCallLink
from modalflow.operators.modal_function import ModalFunctionOperator
from modalflow.operators.modal_function_task import modal_function_task

__all__ = ["ModalFunctionCallLink", "ModalFunctionOperator", "modal_function_task"]
