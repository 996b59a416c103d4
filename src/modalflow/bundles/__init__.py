"""DAG bundles on a Modal Volume: content-addressed and versioned, for the place of a task's run.

``manifest`` defines a version, ``scan`` reads one from a folder, ``store`` keeps versions on the Volume, ``trees``
turns them into folders again, ``volume`` is Airflow's view. Only ``volume`` imports Airflow.
"""
