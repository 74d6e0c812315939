"""The schema: its migrations, what it must look like, and what a projection of one's own adds."""
