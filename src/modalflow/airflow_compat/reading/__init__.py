"""Reads of Airflow's database by the commands, in every supported version. Nothing here writes."""
