"""Operations on a deployment: inspect it, check it, cancel work.

Knows no command line; runs wherever the credentials are, beside a scheduler or far from one.
"""
