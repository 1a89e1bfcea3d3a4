"""The servers as fixtures. Each test process starts its own at the first test that asks, and ends it when it ends."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest
import urllib3

from tests.deployment import eventually, free_port
from tests.servers import install
from tests.servers.stores import Azurite, S3Server
from workers.processes import ending_with_parent

_START_SECONDS = 60.0
_NGINX_CONFIG = """\
%s
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    %s
}
"""


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """Microsoft's own emulator of Azure Blob Storage, with an account and a key that are this run's alone."""
    program = install.azurite()
    if program is None:
        pytest.skip(f"Azurite {install.AZURITE_VERSION} is absent: `make servers` needs Node.js and npm")
    account, key = "receiver", base64.b64encode(os.urandom(64)).decode()
    command = ["node", str(program), "--blobHost", "127.0.0.1", "--blobPort", "0", "--silent", "--disableTelemetry",
               "--skipApiVersionCheck", "--location", str(tmp_path_factory.mktemp("azurite"))]  # fmt: skip
    with _running(command, r"http://127\.0\.0\.1:\d+", {"AZURITE_ACCOUNTS": f"{account}:{key}"}) as url:
        yield Azurite(f"{url}/{account}", account, key)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """moto's S3: it knows multipart uploads and their rules, and believes any key."""
    if find_spec("moto") is None or find_spec("flask_cors") is None:
        pytest.skip("moto with its server is absent: it comes with the packages for development")
    with _running([sys.executable, "-m", "moto.server", "-p", "0"], r"http://127\.0\.0\.1:\d+", {}) as url:
        yield S3Server(url, "AKIAOFTHETESTS", base64.b64encode(os.urandom(30)).decode())


class Nginx:
    """An nginx whose configuration a test brings: what stands between `http {` and `}`, listening on `port`."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.url = f"http://127.0.0.1:{port}"

    @contextlib.contextmanager
    def running(self, http: str) -> Iterator[Nginx]:
        program = install.nginx()
        assert program is not None
        user = "user root;" if os.geteuid() == 0 else ""  # else it becomes nobody, who can't read a test's folder
        (self.folder / "nginx.conf").write_text(_NGINX_CONFIG % (user, http))
        command = [str(program), "-p", str(self.folder), "-c", "nginx.conf", "-e", "stderr"]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=ending_with_parent()) as process:
            try:
                eventually(lambda: self._answers(process), what="nginx")
                yield self
            finally:
                process.terminate()

    def _answers(self, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, "nginx ended; what it said stands above"
        try:
            urllib3.request("GET", self.url, retries=False, timeout=2)
        except urllib3.exceptions.HTTPError:
            return False
        return True


@pytest.fixture
def nginx(tmp_path: Path) -> Nginx:
    """Not running yet: `with nginx.running("server { … }")`, where paths are below `nginx.folder`."""
    if install.nginx() is None:
        pytest.skip("nginx is absent: install it, or `make servers` on Debian or Ubuntu")
    folder = tmp_path / "nginx"
    folder.mkdir()
    return Nginx(folder, free_port())


@contextlib.contextmanager
def _running(command: list[str], address: str, more: Mapping[str, str]) -> Iterator[str]:
    """A server as a process; the address that it says it listens on."""
    environment = {**os.environ, **more}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", preexec_fn=ending_with_parent(),
    ) as process:  # fmt: skip
        said: list[str] = []
        listener = threading.Thread(target=_listen, args=(process, said), daemon=True)
        listener.start()
        try:
            eventually(lambda: said or process.poll() is not None, _START_SECONDS, command[1])

            def found() -> str | None:
                assert process.poll() is None, "".join(said)
                match = re.search(address, "".join(said))
                return match[0] if match else None

            yield eventually(found, _START_SECONDS, "".join(command))
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
            listener.join()


def _listen(process: subprocess.Popen[str], said: list[str]) -> None:
    """What it says, read on so that it never waits for a reader; the beginning is kept."""
    assert process.stdout is not None
    for line in process.stdout:
        if len(said) < 100:
            said.append(line)
