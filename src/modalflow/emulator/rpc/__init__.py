"""How an RPC reaches its handler: sockets, dispatch, repeats, errors."""
