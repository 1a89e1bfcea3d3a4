"""Where a file may be fetched from: as an address is written, and as its name resolves."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
import urllib3
from hypothesis import assume, example, given
from hypothesis import strategies as st

from service.core.addresses import check_address, check_resolved
from service.core.errors import LinkForbidden

HOSTS = ("*.blob.core.windows.net", "files.example", "127.0.0.1", "localhost:8080", "[::1]", "127.0.0.2")


@pytest.mark.parametrize(
    "url",
    [
        "https://jarai.blob.core.windows.net/out/a.mp4?sig=x",
        "https://JARAI.Blob.Core.Windows.NET/a",
        "https://a.b.blob.core.windows.net:443/a",
        "https://files.example./a",
        "http://127.0.0.1:9000/a",
        "http://localhost:8080/a",
        "https://localhost:8080/a",
    ],
)
def test_an_address_on_an_allowed_host_may_be_fetched(url: str) -> None:
    check_address(url, HOSTS)


@pytest.mark.parametrize("pattern", ["[::1]", "[::1]:9000"])
def test_an_ipv6_address_can_be_allowed_as_it_is_written_in_an_address(pattern: str) -> None:
    check_address("http://[::1]:9000/a", (pattern,))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.mp4",
        "/relative?sig=x",
        "https://",
        "https:///a",
        "https://evil.example/a",
        "https://blob.core.windows.net.evil.example/a",
        "https://evil.example/.blob.core.windows.net",
        "https://evil.example?.blob.core.windows.net",
        "https://evil.example#.blob.core.windows.net",
        "https://evil.example\\.blob.core.windows.net/a",
        "https://169.254.169.254\\.blob.core.windows.net/a",
        "https://evil.example@jarai.blob.core.windows.net/a",
        "https://jarai.blob.core.windows.net@evil.example/a",
        "https://@jarai.blob.core.windows.net/a",
        "https://:x@jarai.blob.core.windows.net/a",
        "http://jarai.blob.core.windows.net/a",
        "ftp://jarai.blob.core.windows.net/a",
        "file:///etc/passwd",
        "file://localhost:8080/etc/passwd",
        "http://localhost:9999/a",
        "http://files.example/a",
        "https://jarai.blob.core.windows.net:port/a",
        "https://[jarai.blob.core.windows.net/a",
        "https://jarai\uff0fevil.example\u2100.blob.core.windows.net/a",
    ],
)
def test_an_address_that_leads_elsewhere_is_refused(url: str) -> None:
    with pytest.raises(LinkForbidden):
        check_address(url, HOSTS)


@given(st.text(alphabet="evil.example\\/@:?#[]%\t\n \x00-0", max_size=24), st.sampled_from(["", "/p", ":443/p"]))
@example("evil.example\\", "/p")
def test_the_host_that_is_checked_is_the_host_that_is_asked(text: str, rest: str) -> None:
    url = f"https://{text}.blob.core.windows.net{rest}"
    try:
        check_address(url, ("*.blob.core.windows.net",))
        asked = urllib3.util.parse_url(url).host
    except (LinkForbidden, urllib3.exceptions.LocationParseError):
        return
    assume(asked is not None)
    assert str(asked).rstrip(".").endswith(".blob.core.windows.net")


def test_a_refusal_shows_no_secret() -> None:
    with pytest.raises(LinkForbidden) as refusal:
        check_address("https://evil.example/a?sig=s3cr3t", HOSTS)
    assert "s3cr3t" not in str(refusal.value)
    assert "DOWNLOAD_HOSTS" in str(refusal.value)


def test_a_pattern_of_an_ipv6_address_is_no_class_of_characters() -> None:
    for host in ("1", "f", "e"):
        with pytest.raises(LinkForbidden):
            check_address(f"https://{host}/a", ("[::1]", "[fe80::1]"))


@pytest.mark.parametrize("spelling", ["[::1]", "[0:0:0:0:0:0:0:1]", "[::0001]", "::1"])
def test_an_ipv6_address_is_the_same_however_it_is_written(spelling: str) -> None:
    check_address("https://[::1]/a", (spelling,))
    check_resolved("::1", 443, "::1", (spelling,), secure=True)


def test_an_entry_that_is_no_address_in_brackets_allows_nothing() -> None:
    with pytest.raises(LinkForbidden):
        check_address("https://[::1]/a", ("[store",))
    with pytest.raises(LinkForbidden):
        check_address("https://[::zz]/a".replace("zz", "1.2"), ("[not-an-address]",))


def test_an_address_longer_than_any_client_takes_is_refused() -> None:
    with pytest.raises(LinkForbidden):
        check_address("https://files.example/" + "a" * 9000, HOSTS)


# --- as the name resolves ---------------------------------------------------------------------------------------

PUBLIC = [
    "20.60.1.2",
    "1.1.1.1",
    "2603:1030:a:1::5",
    "2606:4700::1111",
    "::ffff:20.60.1.2",  # IPv4-mapped
    "64:ff9b::20.60.1.2",  # NAT64, which is how a host with nothing but IPv6 gets anywhere
    "2002:143c:102::1",  # 6to4 of 20.60.1.2
]
NOT_PUBLIC = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",  # what Azure's machines are run by
    "192.0.0.170",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1.1.1.1",
    "2002:7f00:1::1",
    "2002:a00:1::",
    "2001::1",
    "2001:db8::1",
    "100::1",
    "4000::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_connected_to(address: str) -> None:
    check_resolved("store.blob.core.windows.net", 443, address, ("*.blob.core.windows.net",), secure=True)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_is_not_public_is_refused_and_the_sentence_says_what_to_do(address: str) -> None:
    with pytest.raises(LinkForbidden) as refusal:
        check_resolved(
            "files.example", 443, address, ("*", "*.example", "file[s].example", "other.example"), secure=True
        )
    assert "DOWNLOAD_HOSTS" in str(refusal.value)


@pytest.mark.parametrize("address", NOT_PUBLIC)
@pytest.mark.parametrize("entry", ["files.internal", "FILES.internal.", "files.internal:9000", "the address"])
def test_a_host_that_is_named_without_a_wildcard_may_lead_inside(address: str, entry: str) -> None:
    literal = f"[{address}]" if ":" in address else address
    entry = literal if entry == "the address" else entry
    check_resolved("files.internal", 9000, address, (entry,), secure=True)


@pytest.mark.parametrize("entry", ["files.internal:443", "internal", "xfiles.internal", "10.0.0.1:443", "10.0.0.10"])
def test_another_port_or_another_host_is_not_what_was_named(entry: str) -> None:
    with pytest.raises(LinkForbidden):
        check_resolved("files.internal", 9000, "10.0.0.1", (entry,), secure=True)


@pytest.mark.parametrize("address", ["20.60.1.2", "10.0.0.1", "2606:4700::1111", "0.0.0.0"])
def test_without_https_only_loopback_may_be_connected_to(address: str) -> None:
    with pytest.raises(LinkForbidden) as refusal:
        check_resolved("localhost", 80, address, ("localhost",), secure=False)
    assert "https" in str(refusal.value)
    check_resolved("localhost", 80, "127.0.0.1", ("localhost",), secure=False)
    check_resolved("localhost", 80, "::1", ("localhost",), secure=False)


INSIDE = [
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
    *("192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4"),
]
inside = (
    st.sampled_from(INSIDE)
    .map(IPv4Network)
    .flatmap(lambda network: st.integers(int(network[0]), int(network[-1])).map(IPv4Address))
)
FORMS = (
    lambda v4: v4,
    lambda v4: IPv6Address(0xFFFF << 32 | int(v4)),
    lambda v4: IPv6Address(int(v4)),
    lambda v4: IPv6Address(0x0064FF9B << 96 | int(v4)),
    lambda v4: IPv6Address(0x2002 << 112 | int(v4) << 80 | 1),
)


@given(inside, st.sampled_from(FORMS))
def test_no_form_of_an_address_inside_passes_under_a_wildcard(
    address: IPv4Address, form: Callable[[IPv4Address], IPv4Address | IPv6Address]
) -> None:
    with pytest.raises(LinkForbidden):
        check_resolved("files.example", 443, str(form(address)), ("*",), secure=True)


@given(st.integers(0, 2**128 - 1).map(IPv6Address), st.booleans())
def test_only_what_the_registry_calls_global_unicast_passes_under_a_wildcard(
    address: IPv6Address, secure: bool
) -> None:
    try:
        check_resolved("files.example", 443, str(address), ("*",), secure=secure)
    except LinkForbidden:
        return
    assert address in IPv6Network("2000::/3") or address.ipv4_mapped or address in IPv6Network("64:ff9b::/96")
