"""The answers of the UI's API: what the React views receive.

Times are seconds since the epoch, money is dollars, memory MiB; empty text, 0 and null stand for unknown.
"""
