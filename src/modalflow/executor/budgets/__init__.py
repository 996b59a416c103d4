"""Budgets in the executor: the present cost of work, tasks held or refused for it, and the reports of both."""
