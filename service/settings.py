"""Settings: the only module that reads the environment. Every name is promised to users (see README)."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.parse import SplitResult, unquote, urlsplit

from dotenv import dotenv_values
from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from service.core.budget import Limits
from service.core.errors import SettingsError
from service.core.schedule import Intervals
from service.core.signature import decode_secret

DEFAULT_REDIS_URL = "redis://127.0.0.1:6379/0"
_SLOWEST_LINE_BYTES = 64 * 1024  # a second; below it, a download that is held back looks like one that hangs
_NOTIFY_PREFIX = "whsec_"
_LEAST_NOTIFY_KEY_BYTES = 24
_LEAST_SECRET_PATH = 20
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_BUCKET = re.compile(r"(s3|az|gs)://[A-Za-z0-9][A-Za-z0-9._-]{1,221}(/[^/?#@\\\s]+)*/*")
# What an object store in STORAGE_URL is reached by, under the names that its vendor's own tools know.
_STORAGE_SECRETS = frozenset(
    [
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_STORAGE_CONNECTION_STRING",
        "AZURE_CLIENT_SECRET",
    ]
)
STORAGE_NAMES = _STORAGE_SECRETS | frozenset(
    [
        "AWS_ACCESS_KEY_ID",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
        "AWS_DISABLE_BULK_DELETE",
        "AWS_ROLE_ARN",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "AZURE_STORAGE_ACCOUNT_NAME",
        "AZURE_STORAGE_ACCOUNT",
        "AZURE_STORAGE_ENDPOINT",
        "AZURE_CLIENT_ID",
        "AZURE_TENANT_ID",
        "AZURE_FEDERATED_TOKEN_FILE",
        "GOOGLE_APPLICATION_CREDENTIALS",
    ]
)
_IN_A_SECRET = re.compile(r"(?:AccountKey|SharedAccessSignature)=([^;]+)|sig=([^&;]+)")


class Settings(BaseModel):
    """All settings of one process. Field aliases are the environment's names."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    jarai_api_url: str = Field("https://api.jarai.studio/v1/partner", alias="JARAI_API_URL")
    jarai_api_key: str = Field("", alias="JARAI_API_KEY", repr=False)
    webhook_secrets: tuple[str, ...] = Field((), alias="JARAI_WEBHOOK_SECRETS", repr=False)
    redis_url: str = Field("", alias="REDIS_URL", repr=False)
    storage_url: str = Field("./var/deliverables", alias="STORAGE_URL")
    storage_environment: tuple[tuple[str, str], ...] = Field((), repr=False)
    state_dir: Path = Field(Path("./var"), alias="STATE_DIR")
    host: str = Field("127.0.0.1", alias="HOST")
    port: int = Field(8000, alias="PORT", ge=0, le=65535)
    admin_token: str = Field("", alias="ADMIN_TOKEN", repr=False)
    download_hosts: tuple[str, ...] = Field(("*.blob.core.windows.net",), alias="DOWNLOAD_HOSTS")
    downloads_per_host: int = Field(0, alias="DOWNLOADS_PER_HOST", ge=0, le=1000)
    download_bytes_per_second: ByteSize = Field(ByteSize(0), alias="DOWNLOAD_BYTES_PER_SECOND")
    max_body_bytes: int = Field(1024 * 1024, alias="MAX_BODY_BYTES", ge=1024, le=64 * 1024 * 1024)
    poll_queued_seconds: float = Field(10, alias="POLL_QUEUED_SECONDS", gt=0, le=86400)
    poll_producing_seconds: float = Field(30, alias="POLL_PRODUCING_SECONDS", gt=0, le=86400)
    poll_waiting_seconds: float = Field(60, alias="POLL_WAITING_SECONDS", gt=0, le=86400)
    webhook_silence_seconds: float = Field(90, alias="WEBHOOK_SILENCE_SECONDS", ge=0, le=86400)
    rate_limit_per_minute: int | None = Field(None, alias="RATE_LIMIT_PER_MINUTE", ge=1)
    rate_limit_per_day: int | None = Field(None, alias="RATE_LIMIT_PER_DAY", ge=1)
    retry_expired: int = Field(0, alias="RETRY_EXPIRED", ge=0, le=10)
    notify_url: str = Field("", alias="NOTIFY_URL", repr=False)
    notify_secret: str = Field("", alias="NOTIFY_SECRET", repr=False, validate_default=True)
    retention_days: float = Field(30, alias="RETENTION_DAYS", gt=0, le=36500)
    log_format: Literal["json", "console", ""] = Field("", alias="LOG_FORMAT")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", alias="LOG_LEVEL")

    @field_validator("webhook_secrets", "download_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("webhook_secrets")
    @classmethod
    def _secrets_decode(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for number, secret in enumerate(value, 1):
            try:
                decode_secret(secret)
            except ValueError as error:
                raise ValueError(f"secret {number} {error}") from None
        return value

    @field_validator("download_hosts")
    @classmethod
    def _hosts_lower(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(host.lower() for host in value)

    @field_validator("download_bytes_per_second")
    @classmethod
    def _line_is_no_trickle(cls, value: ByteSize) -> ByteSize:
        if 0 < value < _SLOWEST_LINE_BYTES:
            raise ValueError(f"must be at least {_SLOWEST_LINE_BYTES // 1024}KiB, or 0 for as fast as it goes")
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _level_lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("jarai_api_url")
    @classmethod
    def _api_url_is_https(cls, value: str) -> str:
        parts = _split(value)
        plain = parts.scheme == "http" and parts.hostname in _LOOPBACK
        if not parts.hostname or not (parts.scheme == "https" or plain) or parts.query or "@" in parts.netloc:
            raise ValueError("must be an https address without a query")
        return value.rstrip("/")

    @field_validator("jarai_api_key", "admin_token")
    @classmethod
    def _fits_a_header(cls, value: str) -> str:
        if not value.isascii() or any(character <= " " for character in value):
            raise ValueError("must be plain characters without spaces")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: str) -> str:
        if value and _split(value).scheme not in ("redis", "rediss", "unix", "redis+sentinel"):
            raise ValueError("must begin with redis://, rediss://, unix:// or redis+sentinel://")
        return value

    @field_validator("storage_url")
    @classmethod
    def _storage_is_a_place(cls, value: str) -> str:
        value = value.removeprefix("file://")
        if "://" not in value:
            return value
        if not _BUCKET.fullmatch(value) or {".", ".."} & set(value.split("/")):
            raise ValueError(
                "must be a folder, s3://bucket/prefix, az://container/prefix or gs://bucket/prefix; "
                "credentials have variables of their own"
            )
        return value.rstrip("/")

    @field_validator("notify_url")
    @classmethod
    def _notify_url_is_http(cls, value: str) -> str:
        parts = _split(value)
        plain = value.isascii() and value.isprintable() and " " not in value
        if value and not (plain and parts.scheme in ("http", "https") and parts.hostname):
            raise ValueError("must be an http or https address")
        if "@" in parts.netloc or parts.fragment:
            raise ValueError("must hold no user, no password and no fragment")
        return value

    @field_validator("notify_secret")
    @classmethod
    def _notify_secret_signs(cls, value: str, others: ValidationInfo) -> str:
        if others.data.get("notify_url") and not value:
            raise ValueError("has to be set where NOTIFY_URL is")
        if value and len(_decode_notify_secret(value)) < _LEAST_NOTIFY_KEY_BYTES:
            raise ValueError(f"must be of at least {_LEAST_NOTIFY_KEY_BYTES} bytes, before they are encoded")
        return value

    @property
    def notify_place(self) -> str:
        """As much of NOTIFY_URL as may be shown: its path and its query may be a secret."""
        parts = urlsplit(self.notify_url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def webhook_keys(self) -> tuple[bytes, ...]:
        return tuple(decode_secret(secret) for secret in self.webhook_secrets)

    @property
    def storage_dir(self) -> Path:
        return Path(self.storage_url)

    @property
    def intervals(self) -> Intervals:
        return Intervals(
            queued=timedelta(seconds=self.poll_queued_seconds),
            producing=timedelta(seconds=self.poll_producing_seconds),
            waiting=timedelta(seconds=self.poll_waiting_seconds),
            silence=timedelta(seconds=self.webhook_silence_seconds),
        )

    @property
    def is_sandboxed(self) -> bool:
        """CONTRACT [docs]: what a test key is answered is made up."""
        return self.jarai_api_key.startswith("jarai_test_")

    @property
    def limits(self) -> Limits:
        return Limits(per_minute=self.rate_limit_per_minute, per_day=self.rate_limit_per_day)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every value that no log line may hold."""
        password = urlsplit(self.redis_url).password or ""
        notify = urlsplit(self.notify_url)
        values = [self.jarai_api_key, self.admin_token, password, unquote(password), *self.webhook_secrets]
        values += [self.notify_secret, self.notify_secret.removeprefix(_NOTIFY_PREFIX), notify.query]
        if len(notify.path) >= _LEAST_SECRET_PATH:  # a shorter one is a word that other texts hold too
            values.append(notify.path)
        for secret in (value for name, value in self.storage_environment if name in _STORAGE_SECRETS):
            parts = [part for pair in _IN_A_SECRET.findall(secret) for part in pair]
            values += [secret, *parts, *map(unquote, parts)]
        return tuple(value for value in values if len(value) >= 4)


def load(environment: Mapping[str, str] | None = None, dotenv: Path | None = Path(".env")) -> Settings:
    """The settings from the environment, and below it from the `.env` file if there is one.

    An empty variable counts as unset. Raises SettingsError with one sentence that names the variable.
    """
    try:
        found: dict[str, Any] = dict(dotenv_values(dotenv, interpolate=False)) if dotenv is not None else {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{dotenv} can't be read: {type(error).__name__}.") from None
    given = os.environ if environment is None else environment
    found |= {name: value for name, value in given.items() if value}
    known = {name: value for name, value in found.items() if value}
    known["storage_environment"] = tuple(sorted((name, known[name]) for name in STORAGE_NAMES & known.keys()))
    try:
        return Settings.model_validate(known)
    except ValidationError as error:
        raise SettingsError(_sentence(error)) from None


def in_environment(name: str) -> bool:
    """A real environment variable of this name, which wins over the `.env` file."""
    return bool(os.environ.get(name))


class Watcher:
    """Tells when the `.env` file has changed. Looking costs one system call."""

    def __init__(self, dotenv: Path = Path(".env")) -> None:
        self._dotenv = dotenv
        self._seen = self._stamp()

    def look(self, current: Settings) -> Settings | None:
        """`current` with the API key and the signing secrets that the file has now, where those are others.

        Everything else needs a restart. Raises SettingsError, once for each change, when the file can't be used.
        """
        now = self._stamp()
        if now == self._seen:
            return None
        self._seen = now
        found = load(dotenv=self._dotenv)
        renewed = {"jarai_api_key": found.jarai_api_key, "webhook_secrets": found.webhook_secrets}
        if all(getattr(current, name) == value for name, value in renewed.items()):
            return None
        return current.model_copy(update=renewed)

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            found = self._dotenv.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def _decode_notify_secret(secret: str) -> bytes:
    """Standard Webhooks: `whsec_` and base64. Raises ValueError without the secret in it."""
    bare = secret.removeprefix(_NOTIFY_PREFIX)
    try:
        if bare == secret:
            raise ValueError
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except ValueError:
        raise ValueError(f"must be {_NOTIFY_PREFIX} followed by base64") from None


def _split(address: str) -> SplitResult:
    """The parts of an address; what can't be read is refused without repeating any of it."""
    try:
        parts = urlsplit(address)
        if "," not in parts.netloc:  # several hosts are Sentinels
            _ = parts.port
    except ValueError:
        raise ValueError("is no address (special characters in it are written as %40 and the like)") from None
    return parts


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    place = str(first["loc"][0])  # the alias, or the field's own name where it is its default that is wrong
    field = Settings.model_fields.get(place)
    name = place if field is None else field.alias
    return f"{name} is wrong: {message[0].lower()}{message[1:]}."
