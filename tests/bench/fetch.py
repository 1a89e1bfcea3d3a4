"""One file, as a download worker fetches it: `python -m tests.bench.fetch URL FOLDER`. Prints seconds and memory."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from service.core.deliverables import Deliverable
from workers.storage.folder import LocalStorage
from workers.transfer import Transfer, open_pool

HOSTS = ("127.0.0.1",)
FILE = Deliverable("0" * 16, "bench", "Other", "Other_0000000000000000.bin")


class _Anybody:
    """Nobody waits, and nobody wants it to end."""

    def gained(self, chunk_bytes: int, size_bytes: int) -> None:
        pass

    def tick(self) -> None:
        pass


def _peak_mib() -> float:
    """Of this program alone: what the system counts for a process begins with whoever started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main(url: str, folder: Path) -> None:
    storage = LocalStorage.open(folder / "out", folder / "state")
    rest_mib = _peak_mib()
    started = time.perf_counter()
    with storage.begin("bench") as partial:
        assert partial is not None
        Transfer(open_pool(HOSTS), HOSTS, FILE, partial, _Anybody()).run(url)
        partial.put_in_place("account/production", FILE.file)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "rest_mib": rest_mib, "peak_mib": _peak_mib()}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
