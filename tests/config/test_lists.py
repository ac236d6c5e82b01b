"""Tests of settings that are lists."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from config import SettingsError, load
from config.lists import networks_in, origins_in


def test_networks() -> None:
    """A list of networks may have single addresses, blanks and empty parts."""
    assert networks_in("") == ()
    assert networks_in("10.0.0.1") == (ip_network("10.0.0.1/32"),)
    assert networks_in(" 10.0.0.0/8,, fd00::/8 ,") == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0", "proxy", "10.0.0.1 10.0.0.2", "10.0.0.1;10.0.0.2"])
def test_what_is_no_network(text: str) -> None:
    """A text that is no network is refused."""
    with pytest.raises(ValueError, match=r"\S"):
        networks_in(f"192.0.2.1, {text}")


def test_origins() -> None:
    """A list of origins may have ports, IPv6 addresses, blanks and empty parts."""
    assert origins_in("") == ()
    assert origins_in("https://app.example, http://localhost:5173,,https://[::1]:8443") == (
        "https://app.example",
        "http://localhost:5173",
        "https://[::1]:8443",
    )


@pytest.mark.parametrize("text", ["app.example", "https://x/", "ftp://x", "https://", "https://x:123456", "*"])
def test_what_is_no_origin(text: str) -> None:
    """A text that is no origin is refused, and the error says what is expected."""
    with pytest.raises(ValueError, match="expected an origin such as"):
        origins_in(f"https://app.example,{text}")


def test_settings_have_the_parsed_lists() -> None:
    """Settings have the lists themselves, whatever their source is."""
    settings = load(["--trusted-proxies=10.0.0.0/8"], environ={"TANDEM_TRUSTED_ORIGINS": "https://a, https://b"})
    assert settings.server.trusted_proxies == (ip_network("10.0.0.0/8"),)
    assert settings.auth.trusted_origins == ("https://a", "https://b")


def test_the_error_about_a_list_names_its_source() -> None:
    """The error about an invalid list names the source, the value and the reason."""
    with pytest.raises(SettingsError, match=r"^--trusted-proxies: '10.0.0.1/8': .*host bits"):
        load(["--trusted-proxies=10.0.0.1/8"], environ={})
    with pytest.raises(SettingsError, match=r"^TANDEM_TRUSTED_ORIGINS: 'x': x: expected an origin"):
        load([], environ={"TANDEM_TRUSTED_ORIGINS": "x"})
