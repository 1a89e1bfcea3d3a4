"""What somebody would build instead: each in a small file that runs with its own packages (../install.py)."""
