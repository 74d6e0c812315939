"""Reads over several tables, page by page."""
