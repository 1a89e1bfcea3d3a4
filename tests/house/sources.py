"""The product's own source, as trees: what the rules of the house are checked on."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


def modules(*folders: str) -> dict[str, ast.Module]:
    """Each module below `folders` by its path, parsed."""
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in paths}


def names(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for: `{"dt": "datetime", "now": "time.time"}`."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.asname or alias.name.partition(".")[0]: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def uses(tree: ast.Module) -> Iterator[str]:
    """The full dotted name of everything that is used: `datetime.datetime.now`, `os.environ`."""
    imported = names(tree)
    for node in ast.walk(tree):
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.insert(0, node.attr)
            node = node.value
        if isinstance(node, ast.Name) and node.id in imported:
            yield ".".join([imported[node.id], *parts])
