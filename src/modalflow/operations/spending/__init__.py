"""Balances of budgets, and advice on saving."""
