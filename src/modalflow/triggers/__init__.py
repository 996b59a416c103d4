"""Triggers of modalflow, for Airflow's triggerer."""

from modalflow.triggers.modal_function_call import ModalFunctionCallTrigger

__all__ = ["ModalFunctionCallTrigger"]
