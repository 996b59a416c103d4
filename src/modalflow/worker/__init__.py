"""The code that runs in a Modal container: it claims work, executes it and reports the outcome.

Shares only ``modalflow.protocol`` and ``modalflow.names`` with the executor: the two may run different versions. A
container imports everything here except ``deploy``, which runs where the worker is deployed.
"""
