"""The zygote: a process that has imported Airflow, and from which every workload is forked."""
