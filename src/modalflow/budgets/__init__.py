"""Money spent on Modal, as budgets count it: by day and by DAG, profile and team."""
