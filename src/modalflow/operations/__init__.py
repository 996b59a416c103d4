"""What an operator does with a deployment: look at it, check it, end something.

Knows no command line; runs wherever the credentials are, beside a scheduler or far from one.
"""
