"""The servers themselves: that a test that needs one has it, or says that it has not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import urllib3

from tests.servers import install
from tests.servers.fixtures import Nginx
from tests.servers.stores import Azurite, S3Server


def test_azurite_gives_a_blob_to_whoever_has_a_signed_address_and_to_nobody_else(azurite: Azurite) -> None:
    container = azurite.container()
    container.put("films/film.mp4", b"the film")
    assert container.sizes() == {"films/film.mp4": 8}
    assert urllib3.request("GET", container.sas("films/film.mp4")).data == b"the film"
    assert urllib3.request("GET", container.sas("films/film.mp4", -60)).status == 403
    assert urllib3.request("GET", container.sas("films/film.mp4").replace("sig=", "sig=A")).status == 403


def test_the_s3_server_keeps_what_it_is_given(s3_server: S3Server) -> None:
    bucket = s3_server.bucket()
    bucket.put("films/film.mp4", b"the film")
    assert (bucket.sizes(), bucket.get("films/film.mp4")) == ({"films/film.mp4": 8}, b"the film")
    assert bucket.unfinished() == 0


def test_nginx_serves_a_folder(nginx: Nginx) -> None:
    (nginx.folder / "film.mp4").write_bytes(b"the film")
    with nginx.running(f"server {{ listen 127.0.0.1:{nginx.port}; root .; }}"):
        answer = urllib3.request("GET", f"{nginx.url}/film.mp4", headers={"Range": "bytes=4-"})
        assert (answer.status, answer.data) == (206, b"film")


def test_where_nothing_can_be_fetched_that_is_said_and_nothing_fails(tmp_path: Path) -> None:
    place = tmp_path / "tests/servers"
    place.mkdir(parents=True)
    program = shutil.copy(install.__file__, place)
    done = subprocess.run(
        [sys.executable, program], env={"PATH": "/nowhere"}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("Azurite is absent, tests that need it are skipped: ")
    assert len(done.stderr.splitlines()) <= 2
    assert list((tmp_path / ".servers").iterdir()) == []
