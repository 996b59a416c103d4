"""Differences between versions of Airflow for operators, sensors and triggers."""
