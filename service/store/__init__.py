"""All of Redis: nothing outside this package sends it a command (RQ aside, which owns its own keys)."""
