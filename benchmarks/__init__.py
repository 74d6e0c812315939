"""How fast, next to the physical limit and the naive way; see README.md."""
