"""Volumes: trees of files, and the views that containers have of them."""
