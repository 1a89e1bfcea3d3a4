"""HTTP around core/partner_api: one attempt, one answer. Whether to try again is never decided here."""

from __future__ import annotations

import ssl

import urllib3
from urllib3.util import Timeout

from service import __version__, outgoing
from service.core.errors import JaraiUnavailable
from service.core.partner_api import LARGEST_ANSWER_BYTES, Request, Response

_TIMEOUT = Timeout(connect=4, read=8)
_LONGEST_ANSWER_SECONDS = 15.0
_CHUNK_BYTES = 64 * 1024
_MOST_AT_ONCE = 8  # of persons who ask through one process
USER_AGENT = f"jarai-receiver/{__version__}"


class Jarai:
    """The Partner API at `base_url`, spoken to with `api_key`. Safe to use from several threads."""

    def __init__(self, base_url: str, api_key: str, longest_seconds: float = _LONGEST_ANSWER_SECONDS) -> None:
        self._base_url, self._longest_seconds = base_url, longest_seconds
        self._headers = {"User-Agent": USER_AGENT, "Accept": "application/json"}
        if api_key:
            self._headers["X-API-Key"] = api_key
        self._pool = outgoing.open_pool(_TIMEOUT, kept=_MOST_AT_ONCE)

    def call(self, request: Request) -> Response:
        """JARAI's answer, whatever its status. Raises JaraiUnavailable when none came, or none that fits in memory."""
        headers = self._headers | ({"Content-Type": "application/json"} if request.body is not None else {})
        if request.keyless:
            headers.pop("X-API-Key", None)
        try:
            with outgoing.within(self._longest_seconds):
                answer = self._pool.request(
                    request.method,
                    self._base_url + request.path,
                    body=request.body,
                    headers=headers,
                    redirect=False,
                    preload_content=False,
                )
                body = _read(answer)
        except urllib3.exceptions.HTTPError as error:
            raise JaraiUnavailable(f"no answer from JARAI: {_plain(error)}", sent=not _before_sending(error)) from None
        return Response(answer.status, {name.lower(): value for name, value in answer.headers.items()}, body)


def _read(answer: urllib3.BaseHTTPResponse) -> bytes:
    """The body, if it fits; a connection with something left on it is not used again."""
    body = bytearray()
    try:
        while chunk := answer.read1(_CHUNK_BYTES):
            body += chunk
            if len(body) > LARGEST_ANSWER_BYTES:
                raise JaraiUnavailable(f"JARAI's answer is larger than {LARGEST_ANSWER_BYTES} bytes")
    except BaseException:
        answer.close()
        raise
    finally:
        answer.release_conn()
    return bytes(body)


def _before_sending(error: Exception) -> bool:
    """There was no connection that a request could have gone over. Everything else counts as sent."""
    if isinstance(error, urllib3.exceptions.SSLError):
        return any(isinstance(one, ssl.SSLCertVerificationError) for one in error.args)
    return isinstance(error, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError))


def _plain(error: Exception) -> str:
    """What went wrong, without addresses."""
    if isinstance(error, urllib3.exceptions.NameResolutionError):
        return "its name can't be resolved"
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "nobody listens there, or it can't be reached"
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "time-out"
    if isinstance(error, urllib3.exceptions.ProtocolError):
        return "the line broke"
    return type(error).__name__
