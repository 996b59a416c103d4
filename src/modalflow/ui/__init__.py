"""Modal in Airflow's UI: a FastAPI app under Airflow's own authentication, and the files of its React views.

Airflow loads ``airflow_plugin`` in every process; this package is imported by an API server, with the first request.
"""
