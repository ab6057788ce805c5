"""Migrations of schema ``kycc``."""
