"""What lives in a Modal container: claims work, runs it, reports its outcome.

Shares nothing with the executor except ``modalflow.protocol`` and ``modalflow.names``: the two may run different
versions.
"""
