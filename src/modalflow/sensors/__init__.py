"""Sensors of modalflow, for DAG files."""

from modalflow.sensors.modal_function_call import ModalFunctionCallSensor

__all__ = ["ModalFunctionCallSensor"]
