"""What knows Postgres: `tables`, `reads` over several, `rules` of verify, the `schema`, the `connection`.

Functions take `conn` first, run inside the caller's transaction and never commit.
"""
