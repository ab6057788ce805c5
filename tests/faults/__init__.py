"""Fault harnesses: run with `make faults-…`; a short form of each is part of the tests."""
