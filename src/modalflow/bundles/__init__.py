"""DAG bundles on a Modal Volume: addressed by content, versioned, and fetched to where a task runs.

``manifest`` defines a version, ``scan`` reads a folder as a version, ``store`` keeps versions on the Volume, and
``trees`` writes them as folders. ``volume`` is Airflow's bundle class. Only ``volume`` and ``in_use`` import Airflow.
"""
