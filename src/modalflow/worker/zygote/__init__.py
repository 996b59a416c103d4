"""The zygote: a process that has imported Airflow, and of which every workload is a fork."""
