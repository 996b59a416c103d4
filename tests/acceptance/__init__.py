"""A package, so that fixtures of package scope, its Airflow among them, end with its last test."""
