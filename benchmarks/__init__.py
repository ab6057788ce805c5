"""Benchmarks: `make bench-…` runs them and writes what was measured into RESULTS.md. Never part of the tests."""
