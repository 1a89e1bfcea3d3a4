"""Measurements: `make bench`. Never part of the tests; every figure is a ratio to a reference of the same run."""
