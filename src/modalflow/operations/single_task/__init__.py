"""One task at a time: what it would ask of Modal, and one of its tries again on this machine."""
