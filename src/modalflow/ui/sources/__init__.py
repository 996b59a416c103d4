"""What the UI reads: Modal and Airflow's database, each once for all viewers."""
