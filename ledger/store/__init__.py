"""The tables: one module each, statements as constants beside the functions that run them.

Functions take `conn` first, run inside the caller's transaction and never commit.
"""
