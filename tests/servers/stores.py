"""Object stores as a test looks at them: over plain HTTP, with signatures made here, never through the product."""

from __future__ import annotations

import base64
import hashlib
import hmac
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol
from urllib.parse import quote, urlencode

import urllib3

AZURE_VERSION = "2021-12-02"


class Bucket(Protocol):
    """A new, empty place in a store. Names are whole: with the prefix, without the bucket."""

    @property
    def environment(self) -> Mapping[str, str]:
        """What a deployment is given to use it: STORAGE_URL with a prefix, credentials, the endpoint."""

    def sizes(self) -> Mapping[str, int]:
        """Everything that a reader can see, by name."""

    def get(self, name: str) -> bytes: ...

    def put(self, name: str, content: bytes) -> None: ...

    def unfinished(self) -> int:
        """Uploads that have begun and are neither there nor gone."""


@dataclass(frozen=True)
class Azurite:
    """An account; `url` ends with its name."""

    url: str
    account: str
    key: str

    def container(self) -> Container:
        made = Container(self, f"c{uuid.uuid4().hex}")
        _ask("PUT", made.address("", restype="container"), wanted=201)
        return made

    def signature(self, text: str) -> str:
        digest = hmac.new(base64.b64decode(self.key), text.encode(), hashlib.sha256).digest()
        return base64.b64encode(digest).decode()

    def account_sas(self) -> dict[str, str]:
        """May do anything with blobs for an hour: the tests' own way in. By the documented string to sign."""
        expiry = _moment(datetime.now(UTC) + timedelta(hours=1))
        fields = {"sv": AZURE_VERSION, "ss": "b", "srt": "sco", "sp": "rwdlac", "se": expiry}
        text = "\n".join([self.account, "rwdlac", "b", "sco", "", expiry, "", "", AZURE_VERSION, "", ""])
        return {**fields, "sig": self.signature(text)}


@dataclass(frozen=True)
class Container:
    """A container of its own in Azurite."""

    azurite: Azurite
    name: str

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            "STORAGE_URL": f"az://{self.name}/some/where",
            "AZURE_STORAGE_ACCOUNT_NAME": self.azurite.account,
            "AZURE_STORAGE_ACCOUNT_KEY": self.azurite.key,
            "AZURE_STORAGE_ENDPOINT": self.azurite.url,
        }

    def address(self, blob: str, **query: str) -> str:
        path = f"/{quote(blob)}" if blob else ""
        return f"{self.azurite.url}/{self.name}{path}?{urlencode({**query, **self.azurite.account_sas()})}"

    def sas(self, blob: str, lasts_seconds: float = 3600) -> str:
        """An address as JARAI hands out: that one blob may be read, until it expires [docs: service SAS]."""
        expiry = _moment(datetime.now(UTC) + timedelta(seconds=lasts_seconds))
        resource = f"/blob/{self.azurite.account}/{self.name}/{blob}"
        text = "\n".join(["r", "", expiry, resource, "", "", "", AZURE_VERSION, "b", "", "", "", "", "", "", ""])
        query = {"sv": AZURE_VERSION, "se": expiry, "sr": "b", "sp": "r", "sig": self.azurite.signature(text)}
        return f"{self.azurite.url}/{self.name}/{quote(blob)}?{urlencode(query)}"

    def sizes(self) -> Mapping[str, int]:
        return self._sizes()

    def _sizes(self, **query: str) -> Mapping[str, int]:
        page = ET.fromstring(_ask("GET", self.address("", restype="container", comp="list", **query)))
        blobs = page.iter("Blob")
        return {one.findtext("Name", ""): int(one.findtext("Properties/Content-Length", "0")) for one in blobs}

    def get(self, name: str) -> bytes:
        return _ask("GET", self.address(name))

    def put(self, name: str, content: bytes) -> None:
        md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
        headers = {"x-ms-blob-type": "BlockBlob", "x-ms-blob-content-md5": md5, "Content-Type": "video/mp4"}
        _ask("PUT", self.address(name), content, headers, wanted=201)

    def say_md5(self, name: str, md5: str) -> None:
        """The digest that goes out with the blob, whatever it holds."""
        _ask("PUT", self.address(name, comp="properties"), headers={"x-ms-blob-content-md5": md5})

    def unfinished(self) -> int:
        return len(self._sizes(include="uncommittedblobs").keys() - self.sizes().keys())


@dataclass(frozen=True)
class S3Server:
    """A server that speaks S3."""

    url: str
    key_id: str
    secret: str

    def bucket(self) -> S3Bucket:
        made = S3Bucket(self, f"b-{uuid.uuid4().hex}")
        self.ask("PUT", made.name)
        return made

    def ask(self, method: str, path: str, content: bytes | None = None) -> bytes:
        """Says who is asking; this server believes it without a signature."""
        who = f"AWS4-HMAC-SHA256 Credential={self.key_id}/20200101/us-east-1/s3/aws4_request"
        return _ask(method, f"{self.url}/{path}", content, {"Authorization": who})


@dataclass(frozen=True)
class S3Bucket:
    """A bucket of its own."""

    server: S3Server
    name: str

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            "STORAGE_URL": f"s3://{self.name}/some/where",
            "AWS_ACCESS_KEY_ID": self.server.key_id,
            "AWS_SECRET_ACCESS_KEY": self.server.secret,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.server.url,
        }

    def sizes(self) -> Mapping[str, int]:
        page = ET.fromstring(self.server.ask("GET", f"{self.name}?list-type=2"))
        contents = page.findall(".//{*}Contents")
        return {one.findtext("{*}Key", ""): int(one.findtext("{*}Size", "0")) for one in contents}

    def get(self, name: str) -> bytes:
        return self.server.ask("GET", f"{self.name}/{quote(name)}")

    def put(self, name: str, content: bytes) -> None:
        self.server.ask("PUT", f"{self.name}/{quote(name)}", content)

    def unfinished(self) -> int:
        page = ET.fromstring(self.server.ask("GET", f"{self.name}?uploads"))
        return len(page.findall(".//{*}Upload"))


def _moment(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _ask(
    method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, wanted: int = 200
) -> bytes:
    answer = urllib3.request(method, url, body=body, headers=headers, retries=False, timeout=20)
    assert answer.status == wanted, (answer.status, answer.data[:500])
    return answer.data
