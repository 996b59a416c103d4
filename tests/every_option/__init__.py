"""Another value than the default for every option of Airflow and its providers that a task can read."""
