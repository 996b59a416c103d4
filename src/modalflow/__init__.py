"""Run Airflow workloads on Modal.

Owns nothing but the version. Importing it must stay free of Airflow, of Modal and of side effects.
"""

__version__ = "0.4.0"
