"""Which URLs and addresses are refused beyond loopback."""

from __future__ import annotations

import socket

import pytest

from bus.config import Settings
from bus.targets.addresses import Addresses, RefusedAddress, literal_address

REFUSED_HOSTS = [
    "169.254.169.254",
    "169.254.169.254.",
    "169.254.170.2",
    "2852039166",
    "0xa9fea9fe",
    "0xa9.254.43518",
    "0251.0376.0251.0376",
    "169.254.43518",
    "[::ffff:a9fe:a9fe]",
    "[::ffff:169.254.169.254]",
    "[::169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::1]",
    "[fe80::1]",
    "[fe80::1%25eth0]",
    "[febf::1]",
    "[fd00:ec2::254]",
    "[fd20:ce::254]",
    "100.100.100.200",
    "0.0.0.0",
    "0",
    "[::]",
    "[::ffff:0.0.0.0]",
    "metadata.google.internal",
    "METADATA.google.internal.",
    "instance-data",
    "user:password@169.254.169.254:80",
]

OPEN_HOSTS = [
    "127.0.0.1",
    "localhost",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "10.0.0.1",
    "172.17.0.1",
    "192.168.1.1",
    "[fd12::1]",
    "169.253.255.255",
    "169.255.0.1",
    "hooks.example.com",
    "metadata.example.com",
    "8.8.8.8",
]


def beyond_loopback(*allowed: str) -> Addresses:
    return Addresses(Settings(host="0.0.0.0", insecure=True, allow_target=allowed))


@pytest.mark.parametrize("host", REFUSED_HOSTS)
def test_refused_beyond_loopback(host: str) -> None:
    reason = beyond_loopback().check_url(f"http://{host}/latest/meta-data")
    assert reason is not None
    assert "password" not in reason


@pytest.mark.parametrize("host", OPEN_HOSTS)
def test_open_beyond_loopback(host: str) -> None:
    assert beyond_loopback().check_url(f"https://{host}:8443/x") is None


@pytest.mark.parametrize("host", [*REFUSED_HOSTS, *OPEN_HOSTS])
def test_nothing_is_refused_on_loopback(host: str) -> None:
    assert Addresses(Settings()).check_url(f"http://{host}/") is None


@pytest.mark.parametrize("host", ["169.254.169.254", "2852039166", "[::ffff:a9fe:a9fe]", "metadata.google.internal"])
def test_an_allowed_network_is_open_in_every_spelling(host: str) -> None:
    addresses = beyond_loopback("169.254.169.0/24")
    assert addresses.check_url(f"http://{host}/") is None
    assert addresses.check_url("http://169.254.170.2/") is not None
    assert addresses.check_url("http://[fe80::1]/") is not None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://",
        "http:///path",
        "//host/path",
        "ftp://host/",
        "file:///etc/passwd",
        "gopher://host/",
        "http://host:99999/",
        "http://[::1/",
        "http://a b/",
        "http://host/\r\nx: y",
        "http://host/\N{LATIN SMALL LETTER A WITH DIAERESIS}",
        "http://\N{FULLWIDTH DIGIT ONE}69.254.169.254/",
    ],
)
@pytest.mark.parametrize("addresses", [Addresses(Settings()), beyond_loopback()], ids=["loopback", "beyond"])
def test_what_is_no_webhook_url(addresses: Addresses, url: str) -> None:
    assert addresses.check_url(url) is not None


def _addr_info(family: int, address: str) -> tuple[int, int, int, str, tuple[str, int]]:
    return family, socket.SOCK_STREAM, 0, "", (address, 80)


@pytest.mark.parametrize(
    ("family", "address"),
    [
        (socket.AF_INET, "169.254.169.254"),
        (socket.AF_INET, "0.0.0.0"),
        (socket.AF_INET6, "::ffff:169.254.169.254"),
        (socket.AF_INET6, "fe80::1%2"),
        (socket.AF_INET6, "fd00:ec2::254"),
    ],
)
def test_no_socket_for_a_refused_address(family: int, address: str) -> None:
    with pytest.raises(RefusedAddress):
        beyond_loopback().open_socket(_addr_info(family, address))


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "93.184.216.34"])
def test_a_socket_for_any_other_address(address: str) -> None:
    beyond_loopback().open_socket(_addr_info(socket.AF_INET, address)).close()


def test_names_are_not_addresses() -> None:
    assert literal_address("localhost") is None
    assert literal_address("a9.example") is None
    assert str(literal_address("127.1")) == "127.0.0.1"
