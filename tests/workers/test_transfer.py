"""One request for one file, against servers that lie: either the right bytes, or a plain sentence in bounded time."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import signal
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from service.core.deliverables import Deliverable
from service.core.errors import CorruptDownload, DownloadError, LinkExpired, LinkForbidden, TransferFailed
from tests.workers.hostile import Asked, Hostile, Script, chunked, head, hostile, whole
from workers import shutdown
from workers.storage.folder import LocalStorage, PartialFile
from workers.transfer import Patience, Transfer, open_pool

TRUTH = bytes(range(256)) * 40
SHA256 = hashlib.sha256(TRUTH).hexdigest()
MD5 = b64encode(hashlib.md5(TRUTH).digest()).decode()
SHORT = Patience(head_seconds=0.6, read_seconds=0.6)
BARE = Deliverable("0" * 16, "d", "Video", "Video_film_0.bin")
SIZED = replace(BARE, bytes=len(TRUTH))
HASHED = replace(BARE, sha256=SHA256)
LOCAL = ("127.0.0.1",)


@dataclass
class Steps:
    """Counts what comes; `hook` runs after each piece."""

    hook: Callable[[], None] = lambda: None
    largest: int = 0

    def gained(self, chunk_bytes: int, size_bytes: int) -> None:
        self.largest = max(self.largest, size_bytes)
        self.hook()

    def tick(self) -> None: ...


@dataclass
class Attempts:
    """Attempts at one file, whose partial file stays between them."""

    storage: LocalStorage
    hosts: tuple[str, ...] = LOCAL
    steps: Steps = field(default_factory=Steps)

    def __post_init__(self) -> None:
        self.pool = open_pool(self.hosts)

    @contextlib.contextmanager
    def partial(self) -> Iterator[PartialFile]:
        with self.storage.begin("file") as partial:
            assert partial is not None
            yield partial

    def run(self, url: str, file: Deliverable = BARE, patience: Patience = SHORT) -> bytes:
        """The bytes that were found complete and right. Raises DownloadError."""
        with self.partial() as partial:
            sha256 = Transfer(self.pool, self.hosts, file, partial, self.steps, patience).run(url)
            content = (self.storage.partial / "file.part").read_bytes()
            assert hashlib.sha256(content).hexdigest() == sha256.sha256
            return content

    def refused(self, url: str, kind: type[DownloadError], file: Deliverable = BARE) -> str:
        """Why it is no file; said in time, in a sentence that holds nothing of the address's query."""
        began = time.monotonic()
        with pytest.raises(kind) as raised:
            self.run(url, file)
        assert time.monotonic() - began < 5
        assert "s3cr3t" not in str(raised.value)
        return str(raised.value)


@pytest.fixture
def attempts(tmp_path: Path) -> Attempts:
    return Attempts(LocalStorage.open(tmp_path / "final", tmp_path / "state"))


def address(server: Hostile) -> str:
    return f"{server.url}/film.mp4?sig=s3cr3t"


# --- a good answer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [BARE, SIZED, HASHED])
@pytest.mark.parametrize(
    "answer",
    [
        whole(TRUTH),
        whole(TRUTH, "Content-Type: application/xml; charset=utf-8", f"Content-MD5: {MD5}"),
        whole(TRUTH, "Content-MD5: nonsense", "ETag: not one\x01"),
        whole(TRUTH, "Content-Encoding: identity"),
        head("Transfer-Encoding: chunked") + chunked([TRUTH[:100], TRUTH[100:]]),
        head("Transfer-Encoding: Chunked") + chunked([TRUTH], b"0\r\nTrailer: x\r\n\r\n"),
        head(status="100 Continue") + whole(TRUTH),
    ],
)
def test_a_good_answer_brings_the_file(attempts: Attempts, answer: bytes, file: Deliverable) -> None:
    with hostile(answer) as server:
        assert attempts.run(address(server), file) == TRUTH


@pytest.mark.parametrize("file", [SIZED, HASHED])
def test_an_answer_without_a_length_is_enough_where_jarai_tells_what_the_file_is(
    attempts: Attempts, file: Deliverable
) -> None:
    with hostile(head() + TRUTH) as server:
        assert attempts.run(address(server), file) == TRUTH


# --- lies -----------------------------------------------------------------------------------------------------

OTHER = TRUTH[:-1] + b"!"
NEVER_RIGHT = {
    "nothing": b"",
    "not HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "another version": b"HTTP/5.0 200 OK\r\n\r\n" + TRUTH,
    "no number": b"HTTP/1.1 OK\r\n\r\n",
    "a number without end": b"HTTP/1.1 " + b"9" * 5000 + b" OK\r\n\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "a head only": head(f"Content-Length: {len(TRUTH)}"),
    "too many headers": head(*["A: b"] * 500) + TRUTH,
    "a header without end": b"HTTP/1.1 200 OK\r\nA: " + b"b" * 200_000,
    "a length that is too long": head(f"Content-Length: {len(TRUTH) + 1}") + TRUTH,
    "two lengths": head(f"Content-Length: {len(TRUTH)}", "Content-Length: 5") + TRUTH,
    "a length of many digits": head("Content-Length: " + "9" * 5000) + TRUTH,
    "a length beyond any disk": head("Content-Length: 99999999999999999") + TRUTH,
    "no length": head() + TRUTH,
    "a negative length": head("Content-Length: -1") + TRUTH,
    "a length in words": head("Content-Length: ten") + TRUTH,
    "chunks that break off": head("Transfer-Encoding: chunked") + chunked([TRUTH], b""),
    "a chunk that breaks off": head("Transfer-Encoding: chunked") + b"ffffff\r\n" + TRUTH,
    "a chunk of no size": head("Transfer-Encoding: chunked") + b"film\r\n" + TRUTH,
    "a chunk of a negative size": head("Transfer-Encoding: chunked") + b"-5\r\n" + TRUTH,
    "a size without end": head("Transfer-Encoding: chunked") + b"1" * 100_000,
    "chunks in another framing": head("Transfer-Encoding: gzip, chunked", f"Content-Length: {len(TRUTH)}") + TRUTH,
    "another framing": head("Transfer-Encoding: zip", f"Content-Length: {len(TRUTH)}") + TRUTH,
    "compressed": whole(TRUTH, "Content-Encoding: gzip"),
    "compressed twice": whole(TRUTH, "Content-Encoding: identity, br"),
    "a page": whole(b"<h1>Sign in</h1>", "Content-Type: text/html"),
    "an error of the store": whole(b"<Error>", "Content-Type: application/xml; charset=utf-8"),
    "another MD5": whole(OTHER, f"x-ms-blob-content-md5: {MD5}"),
    "another Content-MD5": whole(OTHER, f"Content-MD5: {MD5}"),
    "no content": head(status="204 No Content"),
    "a part that nobody asked for": whole(TRUTH[5:], f"Content-Range: bytes 5-99/{len(TRUTH)}", status="206 Partial"),
    "a part without a place": whole(TRUTH, status="206 Partial Content"),
    "parts": whole(TRUTH, "Content-Type: multipart/byteranges; boundary=x", status="206 Partial Content"),
    "a teapot": whole(TRUTH, status="418 Teapot"),
    "not modified": head(status="304 Not Modified"),
}


@pytest.mark.parametrize("lie", NEVER_RIGHT)
def test_a_lie_is_never_a_file_even_where_jarai_announced_nothing(attempts: Attempts, lie: str) -> None:
    with hostile(NEVER_RIGHT[lie]) as server:
        attempts.refused(address(server), DownloadError)
    assert attempts.steps.largest <= len(TRUTH)


@pytest.mark.parametrize("lie", sorted(set(NEVER_RIGHT) - {"no length", "a negative length", "a length in words"}))
def test_a_lie_is_never_another_file_than_jarai_announced(attempts: Attempts, lie: str) -> None:
    with hostile(NEVER_RIGHT[lie]) as server, contextlib.suppress(DownloadError):
        assert attempts.run(address(server), replace(HASHED, bytes=len(TRUTH))) == TRUTH


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_address_that_is_not_good_any_more_wants_a_new_one(attempts: Attempts, status: int) -> None:
    with hostile(whole(b"<Error>", status=f"{status} No")) as server:
        assert str(status) in attempts.refused(address(server), LinkExpired)


def drip(server: Hostile, begin: bytes, piece: bytes) -> Iterable[bytes]:
    return server.endless(piece, begin, pause=0.02)


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\n", b"a"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b""),
    ],
)
def test_a_server_that_drips_is_left_in_time(attempts: Attempts, begin: bytes, piece: bytes) -> None:
    """Each single read would be in time; their sum is what has no end."""
    script: list[Script] = []
    with hostile(lambda asked: script[0](asked)) as server:
        script.append(lambda asked: drip(server, begin, piece))
        assert "line broke" in attempts.refused(address(server), TransferFailed)


def test_a_file_without_end_stops_at_the_size_that_was_announced(attempts: Attempts) -> None:
    script: list[Script] = []
    with hostile(lambda asked: script[0](asked)) as server:
        script.append(
            lambda asked: server.endless(b"3e8\r\n" + bytes(1000) + b"\r\n", head("Transfer-Encoding: chunked"))
        )
        attempts.refused(address(server), CorruptDownload, replace(BARE, bytes=50_000))
    assert attempts.steps.largest <= 50_000


# --- going on where it broke ------------------------------------------------------------------------------------

CUT = head(f"Content-Length: {len(TRUTH)}", 'ETag: "one"') + TRUTH[:4000]


def resume(answers: Iterable[bytes]) -> tuple[Script, list[Asked]]:
    """The first answer breaks off; these come then."""
    asked: list[Asked] = []
    left = iter([CUT, *answers])

    def script(one: Asked) -> bytes:
        asked.append(one)
        return next(left, whole(TRUTH))

    return script, asked


def rest(begin: int = 4000, end: int | None = None, etag: str = '"one"', body: bytes | None = None) -> bytes:
    end = len(TRUTH) - 1 if end is None else end
    lines = [f"Content-Range: bytes {begin}-{end}/{len(TRUTH)}", *([f"ETag: {etag}"] if etag else [])]
    return whole(TRUTH[begin : end + 1] if body is None else body, *lines, status="206 Partial Content")


def test_a_broken_transfer_goes_on_where_it_broke(attempts: Attempts) -> None:
    script, asked = resume([rest()])
    with hostile(script) as server:
        attempts.refused(address(server), TransferFailed)
        assert attempts.run(address(server)) == TRUTH
    assert (asked[1].headers["range"], asked[1].headers["if-range"]) == ("bytes=4000-", '"one"')


@pytest.mark.parametrize(
    "answer",
    [
        rest(begin=3999),
        rest(begin=4001),
        rest(begin=0),
        rest(end=9000),
        rest(body=TRUTH[4000:-1]),
        rest(body=TRUTH[4000:] + b"more"),
        rest(etag='"two"'),
        rest(etag=""),
        rest(etag='W/"one"'),
        whole(TRUTH[4000:], 'ETag: "one"', status="206 Partial Content"),
        whole(TRUTH[4000:], "Content-Range: bytes 4000-", 'ETag: "one"', status="206 Partial Content"),
        whole(TRUTH[4000:], "Content-Range: bytes */10240", 'ETag: "one"', status="206 Partial Content"),
        whole(TRUTH[4000:], "Content-Range: bytes " + "9" * 5000 + "-1/1", 'ETag: "one"', status="206 Partial Content"),
        whole(b"", status="416 Range Not Satisfiable"),
        whole(b"", status="412 Precondition Failed"),
        whole(b"<h1>", "Content-Type: text/html"),
    ],
)
def test_a_continuation_that_does_not_fit_is_never_a_file(attempts: Attempts, answer: bytes) -> None:
    """Nor is what follows it on its connection: at the latest the attempt after the next brings the file."""
    script, _ = resume([answer, whole(TRUTH)])
    with hostile(script) as server:
        attempts.refused(address(server), TransferFailed)
        for _ in range(3):
            try:
                assert attempts.run(address(server)) == TRUTH
                break
            except CorruptDownload:
                with attempts.partial() as partial:
                    partial.discard()
            except TransferFailed:
                pass
        else:
            raise AssertionError("it never comes")


LONGER = [f"Content-Range: bytes 4000-{len(TRUTH)}/{len(TRUTH) + 1}", 'ETag: "one"']
PARTS = [
    f"Content-Range: bytes 4000-{len(TRUTH) - 1}/{len(TRUTH)}",
    'ETag: "one"',
    "Content-Type: multipart/byteranges",
]


@pytest.mark.parametrize(
    ("body", "lines", "why"),
    [(TRUTH[4000:] + b"x", LONGER, "another length"), (TRUTH[4000:], PARTS, "several parts")],
    ids=["of another length", "in several parts"],
)
def test_a_continuation_of_something_else_under_the_same_etag_is_refused(
    attempts: Attempts, body: bytes, lines: list[str], why: str
) -> None:
    script, _ = resume([whole(body, *lines, status="206 Partial Content")])
    with hostile(script) as server:
        attempts.refused(address(server), TransferFailed)
        assert why in attempts.refused(address(server), CorruptDownload)


def test_a_checksum_told_when_a_file_began_is_held_against_it_after_a_break(attempts: Attempts) -> None:
    wrong = base64.b64encode(hashlib.md5(b"something else").digest()).decode()
    cut = head(f"Content-Length: {len(TRUTH)}", 'ETag: "one"', f"Content-MD5: {wrong}") + TRUTH[:4000]
    left = iter([cut, rest()])
    with hostile(lambda _: next(left)) as server:
        attempts.refused(address(server), TransferFailed)
        assert "MD5" in attempts.refused(address(server), CorruptDownload)


@pytest.mark.parametrize("etag", ["", 'ETag: W/"weak"', 'ETag: "two', "ETag: \x00", 'ETag: "' + "x" * 5000 + '"'])
def test_bytes_without_an_etag_of_their_own_are_never_continued_under_an_earlier_one(
    attempts: Attempts, etag: str
) -> None:
    """The file changed and changed back: what came in between must not end up inside."""
    changed = head(f"Content-Length: {len(TRUTH)}", *([etag] if etag else [])) + bytes(5000)
    script, asked = resume([changed, whole(TRUTH)])
    with hostile(script) as server:
        attempts.refused(address(server), TransferFailed)
        attempts.refused(address(server), TransferFailed)
        assert attempts.run(address(server)) == TRUTH
    assert "range" not in asked[2].headers or asked[2].headers["if-range"] != '"one"'


# --- redirects --------------------------------------------------------------------------------------------------


def redirecting(*locations: str, status: str = "302 Found") -> Script:
    """To each of these in turn, and the file at last."""
    left = iter(locations)

    def script(asked: Asked) -> bytes:
        location = next(left, None)
        return whole(TRUTH) if location is None else whole(b"", f"Location: {location}", status=status)

    return script


@pytest.mark.parametrize("location", ["/other.mp4?sig=s3cr3t", "other.mp4", "?sig=s3cr3t-2", "../../x"])
@pytest.mark.parametrize("status", ["301 M", "302 F", "303 S", "307 T", "308 P"])
def test_a_redirect_on_the_same_host_is_followed(attempts: Attempts, location: str, status: str) -> None:
    with hostile(redirecting(location, status=status)) as server:
        assert attempts.run(address(server)) == TRUTH
        assert len(server.asked) == 2


@pytest.mark.parametrize(
    "location",
    [
        "http://localhost:{port}/film.mp4",
        "http://127.0.0.2:{port}/film.mp4",
        "http://127.1:{port}/film.mp4",
        "http://2130706433:{port}/film.mp4",
        "http://0x7f000001:{port}/film.mp4",
        "http://0177.0.0.1:{port}/film.mp4",
        "http://[::ffff:127.0.0.1]:{port}/film.mp4",
        "http://[::1]:{port}/film.mp4",
        "http://169.254.169.254/latest/meta-data",
        "http://0.0.0.0:{port}/film.mp4",
        "//evil.example/film.mp4",
        "file:///etc/passwd",
        "ftp://127.0.0.1/film.mp4",
        "gopher://127.0.0.1:{port}/film.mp4",
        "http://user:s3cr3t@127.0.0.1:{port}/film.mp4",
        "http://127.0.0.1:{port}\\@evil.example/film.mp4",
        "http://[127.0.0.1/film.mp4",
        "javascript:alert(1)",
    ],
)
def test_a_redirect_that_leads_elsewhere_is_refused_without_a_request(attempts: Attempts, location: str) -> None:
    with hostile(redirecting(*[location] * 2)) as server:
        script = redirecting(location.format(port=server.port))
        server.script = script
        attempts.refused(address(server), LinkForbidden)
        assert len(server.asked) == 1


def test_a_redirect_that_names_no_address_is_not_followed(attempts: Attempts) -> None:
    with hostile(whole(b"", status="302 Found")) as server:
        assert "redirect" in attempts.refused(address(server), TransferFailed)
        assert len(server.asked) == 1


def test_redirects_without_end_are_left(attempts: Attempts) -> None:
    with hostile(whole(b"", "Location: /again", status="302 Found")) as server:
        assert "redirect" in attempts.refused(address(server), TransferFailed)
        assert len(server.asked) == 4


# --- where a name leads to ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1"])
def test_a_wildcard_never_leads_to_a_private_address_however_its_name_is_written(attempts: Attempts, host: str) -> None:
    anywhere = replace(attempts, hosts=("*",))
    with hostile(whole(TRUTH)) as server:
        for scheme in ("http", "https"):
            sentence = anywhere.refused(f"{scheme}://{host}:{server.port}/film.mp4?sig=s3cr3t", LinkForbidden)
            assert "DOWNLOAD_HOSTS" in sentence or "not https" in sentence
        assert server.asked == []


def test_a_wildcard_never_leads_to_a_private_address_of_ipv6(attempts: Attempts) -> None:
    anywhere = replace(attempts, hosts=("*",))
    for host in ("[::1]", "[::ffff:127.0.0.1]", "[::]", "[fe80::1]", "[64:ff9b::7f00:1]", "[::7f00:1]"):
        assert "DOWNLOAD_HOSTS" in anywhere.refused(f"https://{host}:9/film.mp4?sig=s3cr3t", LinkForbidden)


@pytest.mark.parametrize("hosts", [("localhost",), ("*host", "localhost"), ("*host", "127.0.0.1")])
def test_a_name_that_is_allowed_by_itself_or_by_its_address_leads_where_it_leads(
    attempts: Attempts, hosts: tuple[str, ...]
) -> None:
    with hostile(whole(TRUTH)) as server:
        url = f"http://localhost:{server.port}/film.mp4"
        assert replace(attempts, hosts=hosts).run(url) == TRUTH
        with_port = tuple(host if "*" in host else f"{host}:{server.port}" for host in hosts)
        assert replace(attempts, hosts=with_port).run(url) == TRUTH
        other_port = tuple(host if "*" in host else f"{host}:9" for host in hosts)
        replace(attempts, hosts=other_port).refused(url, LinkForbidden)


def test_a_name_that_does_not_resolve_is_tried_again(attempts: Attempts) -> None:
    nowhere = replace(attempts, hosts=("*.invalid",))
    assert "NameResolutionError" in nowhere.refused("https://store.invalid/film.mp4", TransferFailed)


# --- the end of this worker ----------------------------------------------------------------------------------------


def test_a_signal_after_the_last_byte_does_not_spoil_a_whole_file(attempts: Attempts) -> None:
    """Nothing is left to be broken off then, and a signal handler that raises would end the work in the middle."""
    previous = signal.signal(signal.SIGUSR1, lambda *_: [interrupt() for interrupt in shutdown._interrupts])
    attempts.steps.hook = lambda: signal.raise_signal(signal.SIGUSR1)
    try:
        with hostile(whole(TRUTH)) as server:
            assert attempts.run(address(server)) == TRUTH
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_a_thread_of_its_own_keeps_its_own_deadline(attempts: Attempts, tmp_path: Path) -> None:
    """Two transfers at the same time: the impatient one does not end the other."""
    go = threading.Event()

    def script(asked: Asked) -> Iterator[bytes]:
        yield head(f"Content-Length: {len(TRUTH)}") + TRUTH[:100]
        go.wait(5)
        yield TRUTH[100:]

    with hostile(script) as server:
        found: list[bytes] = []
        patient = threading.Thread(
            target=lambda: found.append(attempts.run(address(server), patience=Patience(10, 10)))
        )
        patient.start()
        other = Attempts(LocalStorage.open(tmp_path / "other", tmp_path / "other-state"))
        other.refused(address(server), TransferFailed)
        go.set()
        patient.join()
    assert found == [TRUTH]
