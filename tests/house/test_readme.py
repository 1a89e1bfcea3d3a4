"""The README is true: what it lists is what there is."""

from __future__ import annotations

import re
from pathlib import Path

from service.log import CATALOGUE
from service.settings import Settings

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_readme_lists_every_log_event_with_its_level_fields_and_alert() -> None:
    table = README.partition("<!-- the log's catalogue")[2].partition("<!-- end of the catalogue")[0]
    rows = re.findall(r"^\| `([a-z_.]+)`( ⚠)? \| (\w+) \| (.*?) \| (.*) \|$", table, re.MULTILINE)
    listed = {name: (bool(alert), level, fields, meaning) for name, alert, level, fields, meaning in rows}
    assert listed == {name: (one.alert, one.level, one.fields, one.meaning) for name, one in CATALOGUE.items()}


def test_the_readme_lists_every_setting() -> None:
    table = README.partition("## Settings")[2].partition("## The log")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([A-Z_]+)`", row)}
    assert named == {field.alias for field in Settings.model_fields.values() if field.alias}
