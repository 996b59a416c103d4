"""How the program of a container runs inside its root: on this machine's kernel, or on gVisor's."""
