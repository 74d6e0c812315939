"""The rules of `verify` over the tables: one statement each, which finds the first row that breaks it."""
