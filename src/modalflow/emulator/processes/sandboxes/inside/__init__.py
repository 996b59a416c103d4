"""Programs that run inside a sandbox of gVisor, with the standard library alone: no other module of this package."""

#: The files in the folder that a gateway shares with the control plane: its socket, and the mark of a restored
#: container. Then the file with the identity for Modal's runtime, until the gateway is ready and afterwards.
SOCKET, RESTORED, PENDING_STATE, STATE = "gateway.sock", "restored", "state.json.pending", "state.json"

#: The exit code if the network cannot be set up before the snapshot.
NO_GATEWAY = 117

#: What a container reaches: all that the control plane does, or the control plane alone.
ALL, CONTROL_PLANE = "all", "control plane"
