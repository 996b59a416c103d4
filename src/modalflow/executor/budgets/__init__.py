"""Budgets in the executor: what work costs now, which tasks wait or fail for it, and how that is reported."""
