"""HTTP around core/partner_api: one attempt, one answer. Whether to try again is never decided here."""

from __future__ import annotations

import urllib3
from urllib3.util import Timeout

from service import __version__
from service.core.errors import JaraiUnavailable
from service.core.partner_api import LARGEST_ANSWER_BYTES, Request, Response

_TIMEOUT = Timeout(connect=4, read=8)
USER_AGENT = f"jarai-receiver/{__version__}"


class Jarai:
    """The Partner API at `base_url`, spoken to with `api_key`. Safe to use from several threads."""

    def __init__(self, base_url: str, api_key: str) -> None:
        self._base_url = base_url
        self._headers = {"User-Agent": USER_AGENT, "Accept": "application/json"}
        if api_key:
            self._headers["X-API-Key"] = api_key
        self._pool = urllib3.PoolManager(retries=False, timeout=_TIMEOUT)

    def call(self, request: Request) -> Response:
        """JARAI's answer, whatever its status. Raises JaraiUnavailable when none came, or none that fits in memory."""
        headers = self._headers | ({"Content-Type": "application/json"} if request.body is not None else {})
        try:
            answer = self._pool.request(
                request.method,
                self._base_url + request.path,
                body=request.body,
                headers=headers,
                redirect=False,
                preload_content=False,
            )
            try:
                body = answer.read(LARGEST_ANSWER_BYTES + 1, decode_content=True)
                complete = len(body) <= LARGEST_ANSWER_BYTES
            finally:
                answer.drain_conn() if answer.length_remaining == 0 else answer.close()
                answer.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise JaraiUnavailable(f"no answer from JARAI: {_plain(error)}") from None
        if not complete:
            raise JaraiUnavailable(f"JARAI's answer is larger than {LARGEST_ANSWER_BYTES} bytes", status=answer.status)
        return Response(answer.status, {name.lower(): value for name, value in answer.headers.items()}, body)


def _plain(error: Exception) -> str:
    """What went wrong, without addresses."""
    if isinstance(error, urllib3.exceptions.NameResolutionError):
        return "its name can't be resolved"
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "time-out"
    return type(error).__name__
