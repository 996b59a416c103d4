"""The Airflow home of a task: the configuration of the Airflow host, published once and named by its content.

``snapshot`` defines what is published, ``sealing`` protects its secret settings, and ``store`` keeps it on the logs
Volume. ``host_home`` collects it on the Airflow host. A container makes a folder of it (``worker.airflow_home``).
"""
