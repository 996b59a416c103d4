"""Commands about one task: what it would ask of Modal, and one of its tries again."""
