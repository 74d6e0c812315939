"""The tables: one module each, statements as constants beside the functions that run them."""
