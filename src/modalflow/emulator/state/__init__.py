"""Durable state: the state folder, its journal, and named objects."""
