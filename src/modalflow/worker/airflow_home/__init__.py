"""The Airflow home of a container's tasks, made of what the executor has published (``modalflow.airflow_home``)."""
