"""The demo: a real Airflow on a local Modal control plane, in processes that end with the one that started them.

Also what the acceptance tests stand on. It owns processes, ports and reports; how work runs on Modal is none of its
business.
"""
