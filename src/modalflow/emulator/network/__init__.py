"""The network of containers: a loopback of their own, and tunnels to their ports."""
