"""The demo: a real Airflow on a local Modal control plane, in processes with the lifetime of their starter.

The acceptance tests use it, too. It owns processes, ports and reports. It does not know how work runs on Modal.
"""
