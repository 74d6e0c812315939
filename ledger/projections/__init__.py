"""Read models: one module each. `projection` says what one is, `registry` which there are.

A projection's `apply` runs inside the caller's transaction and never commits.
"""
