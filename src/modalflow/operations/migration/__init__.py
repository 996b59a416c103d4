"""`modalflow migrate`: what changes in DAG files of another executor, read from their source."""
