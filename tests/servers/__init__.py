"""Servers that nobody here wrote, for tests that must not take our own word for what a store or a web server does."""
