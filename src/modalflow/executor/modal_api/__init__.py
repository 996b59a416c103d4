"""The calls of Modal's SDK: no other part of the executor makes any."""
