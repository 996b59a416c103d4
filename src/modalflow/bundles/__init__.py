"""DAG bundles that live on a Modal Volume: content-addressed, versioned, brought to where a task runs.

``manifest`` says what a version is, ``scan`` reads one off a folder, ``store`` keeps versions on the Volume, ``trees``
turns them into folders again, ``volume`` is Airflow's view of it all. Only ``volume`` imports Airflow.
"""
