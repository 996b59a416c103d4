"""All code for specific versions of Airflow, in one module for each reader.

Imports nothing: commands and Airflow's logging configuration import this package while Airflow itself is being
imported. Holds no logic of the executor's or the worker's own.
"""
