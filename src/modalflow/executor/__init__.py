"""The executor in the scheduler: Airflow's hooks, and the engine thread that talks to Modal for them."""
