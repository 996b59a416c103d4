"""The Airflow side of the relay."""
