"""The relay: requests of workers to Airflow's Execution API travel over Modal, and the Airflow side only dials out.

``container`` runs in a worker's container, ``host`` beside Airflow. They meet in messages, and may run neighbouring
versions of modalflow.
"""
