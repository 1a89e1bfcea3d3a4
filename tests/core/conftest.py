"""Hypothesis without dice: the same examples on every machine and in every run."""

from hypothesis import settings

settings.register_profile("core", derandomize=True, max_examples=200, deadline=None, database=None)
settings.load_profile("core")
