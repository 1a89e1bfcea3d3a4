"""The proof by breaking: a deployment of real processes under a seeded plan of trouble, and then a count.

`python -m tests.chaos` runs it; docs/chaos.md says what is done and what is counted.
"""
