"""What every part may use: text made safe, errors in words, forks. Leaves, without a word of Airflow or Modal."""
