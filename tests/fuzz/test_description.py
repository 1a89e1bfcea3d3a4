"""Every place over HTTP against its own description: schemathesis sends what it allows and what it forbids."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.deployment import ADMIN_TOKEN
from tests.fuzz.conftest import FUZZ_EXAMPLES
from tests.store.making import event, keep, listing, new_id, take_in
from tests.web.conftest import Web

SEED = 20260403


def test_every_answer_is_as_described_whatever_is_asked(web: Web, tmp_path: Path) -> None:
    """All checks: no server error, status, content type, schema, wrong data refused, no way around the token."""
    for number in range(1, 4):
        data = listing("https://store.blob.core.windows.net/film.mp4?sig=x")
        take_in(web.redis, event(new_id(), number, "deliverable.ready", data=data))
        keep(web.redis, b"no event, number %d" % number)
    how = ["--max-examples", str(FUZZ_EXAMPLES), "--workers", "2"] if FUZZ_EXAMPLES else ["--max-examples", "3"]
    done = subprocess.run(
        [Path(sys.executable).parent / "st", "run", f"{web.url}/openapi.json",
         "--header", f"Authorization: Bearer {ADMIN_TOKEN}", "--checks", "all", "--no-color", "--warnings", "off",
         *(() if FUZZ_EXAMPLES else ("--seed", str(SEED))), *how],
        cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "120"},
    )  # fmt: skip
    print(done.stdout if FUZZ_EXAMPLES else "")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "14 selected / 14 total" in done.stdout
    assert not [line for line in web.lines() if "exception" in line]
