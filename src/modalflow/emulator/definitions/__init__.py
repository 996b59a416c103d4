"""Every field of the definitions that a deployment sends: used, refused, or without effect here."""
