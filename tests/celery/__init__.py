"""Tasks on Celery and on Modal in one Airflow: `make test-celery`."""
