"""Migrations of schema ``robosystems``."""
