"""This machine's Airflow configuration, for commands: collected, stored for a probe, previewed for a deployment."""
