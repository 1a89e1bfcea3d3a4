from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import urllib3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_says_how_to_point_a_receiver_at_it_and_stops_at_once(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "workers.simulator.cli", "--port", "0", "--seed", "5", "--webhook-url", ""]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(6)]
        exports = dict(line.removeprefix("export ").strip().split("=", 1) for line in lines[2:])
        assert exports.keys() == {"JARAI_API_URL", "JARAI_API_KEY", "JARAI_WEBHOOK_SECRETS", "DOWNLOAD_HOSTS"}
        assert "seed 5" in lines[0]
        with urllib3.PoolManager() as pool:
            url = f"{exports['JARAI_API_URL']}/accounts"
            answer = pool.request("GET", url, headers={"X-API-Key": exports["JARAI_API_KEY"]}, retries=5)
            assert answer.status == 200
            asked_at = time.monotonic()
            os.kill(process.pid, number)
            assert process.wait(timeout=5) == 0
        assert time.monotonic() - asked_at < 2
        assert process.stderr is not None
        assert process.stderr.read() == ""
