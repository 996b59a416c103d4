"""Calls of Functions in other Modal apps: lookup, spawn, outcome, cancellation. For operators, sensors and triggers.

Knows nothing of the executor and its worker, and needs Modal's SDK only. Airflow is imported for a connection's
credentials alone, in ``airflow_compat``.
"""
