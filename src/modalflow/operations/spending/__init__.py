"""What is spent of budgets, and what tasks could save."""
