"""The deployment of the worker. Runs on the user's machine; no container imports it."""
