"""Budgets in the executor: the present cost of work, the tasks held or refused for it, and the reports."""
