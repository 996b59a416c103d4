"""The table of Airflow's options: which settings of the Airflow host hold in containers, and why not the others."""
