"""Tests of the views in Airflow's UI, in a real browser."""
