"""The way into an object store: which one STORAGE_URL names, by which credentials, and what its refusals mean.

obstore's messages hold addresses, headers and whole answers. None of them goes further than this module.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import lru_cache
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, S3Store

from service.core.errors import StorageUnavailable
from service.jarai import USER_AGENT

Store = S3Store | AzureStore | GCSStore

# Together below the half minute that a claim lasts: a store that hangs doesn't outlive it. There are retries, though
# clients make one attempt elsewhere: the upload of a whole film would begin anew for one part that met a busy server.
_CLIENT = {"timeout": "20s", "connect_timeout": "5s", "user_agent": USER_AGENT}
_RETRY = {
    "max_retries": 2,
    "retry_timeout": timedelta(seconds=5),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=2), "base": 2},
}
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
}
# Azure's command line calls some things otherwise than obstore does; either name will do.
_ALIASES = {
    "AZURE_STORAGE_ACCOUNT": "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_KEY": "AZURE_STORAGE_ACCOUNT_KEY",
}
_IN_CONNECTION_STRING = {
    "AccountName": "AZURE_STORAGE_ACCOUNT_NAME",
    "AccountKey": "AZURE_STORAGE_ACCOUNT_KEY",
    "SharedAccessSignature": "AZURE_STORAGE_SAS_TOKEN",
    "BlobEndpoint": "AZURE_STORAGE_ENDPOINT",
}
_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|The specified (?:container|bucket) does not exist")
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
_KIND = re.compile(r"\bkind: (Connect|Timeout)\b")


@lru_cache(maxsize=4)
def connect(url: str, environment: tuple[tuple[str, str], ...]) -> Store:
    """The store at s3://, az:// or gs://bucket/prefix; nothing is asked yet. Raises StorageUnavailable.

    The same for the same: connections are kept, and short-lived credentials are fetched once for many files.
    """
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    makers: Mapping[str, Callable[..., Store]] = {"s3": S3Store, "az": AzureStore, "gs": GCSStore}
    config, endpoint = {"s3": _aws, "az": _azure, "gs": _google}[scheme](dict(environment))
    client = {**_CLIENT, "allow_http": _is_plain(*endpoint)}
    with refusals(url):
        return makers[scheme](bucket, prefix=prefix or None, config=config, client_options=client, retry_config=_RETRY)


Given = Mapping[str, str]
Configured = tuple[Mapping[str, Any], tuple[str, str]]


def _aws(given: Given) -> Configured:
    config = {name: value for name, value in given.items() if name.startswith("AWS_")}
    name = "AWS_ENDPOINT_URL_S3" if "AWS_ENDPOINT_URL_S3" in config else "AWS_ENDPOINT_URL"
    return config, (name, config.get(name, ""))


def _azure(given: Given) -> Configured:
    config = {_ALIASES.get(name, name): value for name, value in given.items() if name.startswith("AZURE_")}
    for part in config.pop("AZURE_STORAGE_CONNECTION_STRING", "").split(";"):
        key, _, value = part.partition("=")
        if key in _IN_CONNECTION_STRING:
            config.setdefault(_IN_CONNECTION_STRING[key], value)
    if "AZURE_STORAGE_SAS_TOKEN" in config:
        config["AZURE_STORAGE_SAS_TOKEN"] = config["AZURE_STORAGE_SAS_TOKEN"].removeprefix("?")
    return config, ("AZURE_STORAGE_ENDPOINT", config.get("AZURE_STORAGE_ENDPOINT", ""))


def _google(given: Given) -> Configured:
    return {name: value for name, value in given.items() if name.startswith("GOOGLE_")}, ("", "")


def _is_plain(name: str, endpoint: str) -> bool:
    """Whether the endpoint is http, which it may be towards this machine only. Raises StorageUnavailable."""
    if not endpoint:
        return False
    try:
        parts = urlsplit(endpoint)
        host, _ = parts.hostname or "", parts.port
        sound = bool(host) and "@" not in parts.netloc and not parts.query
        if sound and parts.scheme == "https":
            return False
        if sound and parts.scheme == "http" and (host == "localhost" or ip_address(host).is_loopback):
            return True
    except ValueError:
        pass
    raise StorageUnavailable(f"{name} is wrong: it must be an https address (http only towards this machine)")


@contextlib.contextmanager
def refusals(where: str) -> Iterator[None]:
    """Whatever the store refuses, as StorageUnavailable in plain words. An object that is not there: FileNotFoundError.

    `where` is STORAGE_URL.
    """
    try:
        yield
    except FileNotFoundError as error:
        if not _NO_BUCKET.search(str(error)):
            raise FileNotFoundError("no such object") from None
        raise StorageUnavailable(_sentence(where, error)) from None
    except (BaseError, ValueError, OSError) as error:
        raise StorageUnavailable(_sentence(where, error)) from None


def _sentence(where: str, error: Exception) -> str:
    text = str(error)
    status, code, kind = _STATUS.search(text), _CODE.search(text), _KIND.search(text)
    said = " ".join(match[1] for match in (status, code) if match)
    if _NO_BUCKET.search(text):
        return f"{where}: there is no such bucket or container; make it, or correct STORAGE_URL"
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or (status and status[1] in ("401", "403")):
        return (
            f"{where} refuses these credentials ({said or type(error).__name__}): check "
            f"{_CREDENTIALS[where.partition('://')[0]]}; they must be allowed to list, read, write and delete"
        )
    if isinstance(error, PreconditionError):
        return f"{where}: an object was replaced while it was read"
    if kind:
        return f"{where} {'does not answer in time' if kind[1] == 'Timeout' else 'can not be reached'}"
    if said:
        return f"{where} answers {said}"
    return (
        f"{where} can't be used ({type(error).__name__}): check {_CREDENTIALS[where.partition('://')[0]]} "
        "and the endpoint"
    )
