"""Migrations of schema ``control``."""
