"""The Airflow host's configuration for containers: its settings and files, stored once by content as an Airflow home.

The host's side and the format. The worker's side is ``worker``.
"""
