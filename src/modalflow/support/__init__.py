"""Shared tools: safe text, descriptions of errors, forks. Leaves without any import of Airflow or Modal."""
