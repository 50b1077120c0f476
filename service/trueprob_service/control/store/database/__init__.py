"""Connections to the database, what is wrong with them, and whether the database works."""
