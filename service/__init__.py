"""The service: it receives, remembers and answers. It never imports `workers`, which go out and fetch."""

__version__ = "0.1.0"
