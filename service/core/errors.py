"""Every error that the product raises on purpose, split by who has to act.

Facts are attributes; nobody ever parses them out of a message. Messages are safe to show: they never hold a secret.
"""

from __future__ import annotations


class ReceiverError(Exception):
    """Root of the tree: everything here is expected, has a plain sentence, and needs no traceback."""


# --- the sender of a webhook has to act ------------------------------------------------------------------------


class InvalidSignature(ReceiverError):
    """The signature is missing, malformed or made with another secret. Nothing of the request is kept."""


class UnknownKey(InvalidSignature):
    """Well-formed, and made with a key that is none of ours."""


class MalformedEvent(ReceiverError):
    """Signed, but not an event that can be used. The body is kept whole under dead letters."""


# --- JARAI has to act ------------------------------------------------------------------------------------------


class JaraiError(ReceiverError):
    """JARAI did not do what it was asked.

    `code` is JARAI's own word where it gave one; `correlation_id` is what its support asks for. `sent`: the request may
    have reached JARAI. `advice` is what a person can do about it, known to whoever knows what was asked.
    """

    advice = ""

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        status: int | None = None,
        correlation_id: str | None = None,
        retry_after_seconds: float | None = None,
        sent: bool = True,
    ) -> None:
        super().__init__(message)
        self.sent = sent
        self.code = code
        self.status = status
        self.correlation_id = correlation_id
        self.retry_after_seconds = retry_after_seconds

    @property
    def sentence(self) -> str:
        """All of it for a person, in one line."""
        advice = f"; {self.advice}" if self.advice else ""
        reference = f" (correlation id {self.correlation_id})" if self.correlation_id else ""
        return f"{str(self).rstrip('.')}{advice}{reference}"


class JaraiUnavailable(JaraiError):
    """No usable answer: a 5xx, a time-out, a cut connection, garbage. Asking again later helps."""


class JaraiRefused(JaraiError):
    """A 4xx other than 429: asking the same again does not help."""


class RateLimited(JaraiError):
    """429. Nobody of this deployment may ask before `retry_after_seconds` have passed."""


# --- a deliverable's address or its bytes ----------------------------------------------------------------------


class DownloadError(ReceiverError):
    """One attempt to fetch a deliverable did not end in a verified file."""


class LinkExpired(DownloadError):
    """The address is not valid (any more): a fresh list of deliverables brings another."""


class LinkForbidden(DownloadError):
    """The address leads where this deployment must not go (see DOWNLOAD_HOSTS)."""


class CorruptDownload(DownloadError):
    """The bytes are not those that JARAI announced."""


class UnsoundContent(CorruptDownload):
    """The bytes arrived as announced, and are not such a file as they should be."""


class SameFile(DownloadError):
    """What the address leads to is what is stored already: there is nothing to fetch."""


class TransferFailed(DownloadError):
    """The line or the server broke; trying again helps."""


class TransferStopped(DownloadError):
    """This process has to end; what has been fetched so far waits for the next worker."""


# --- a person who asks something of JARAI has to act -----------------------------------------------------------


class InvalidField(ReceiverError):
    """A value that JARAI would not take. `field` is its name in the Partner API; nothing was sent."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field, self.problem = field, problem


class NoRequestLeft(ReceiverError):
    """The budget of requests to JARAI is used up for `wait_seconds`; nothing was sent."""

    def __init__(self, message: str, wait_seconds: float) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


class OutcomeUnknown(ReceiverError):
    """JARAI may or may not have started a production. `repeated`: by an earlier request, and none was sent now."""

    def __init__(self, message: str, *, repeated: bool) -> None:
        super().__init__(message)
        self.repeated = repeated


class NotTracked(ReceiverError):
    """JARAI has done what it was asked, and Redis could not take it in. The message names the production."""


# --- we, or whoever runs us, have to act -----------------------------------------------------------------------


class StoreUnavailable(ReceiverError):
    """Redis does not answer, or does not take what it is given."""


class StorageUnavailable(ReceiverError):
    """The folder for deliverables is full, gone or read-only."""


class SettingsError(ReceiverError):
    """A setting is missing or wrong. The message names the variable, never the value of a secret."""


class UnreadableState(ReceiverError):
    """What is kept of a production can't be read: written by a newer version, or by nothing of ours."""
