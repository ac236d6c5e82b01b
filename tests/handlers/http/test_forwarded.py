"""Tests of the headers that proxies write. test_request_policy.py tests which proxies are trusted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.httputil import HTTPHeaders

from handlers.http.forwarded import elements_of, forwarded_for, forwarded_proto, host_of_node

NODES = {
    " 198.51.100.1 ": "198.51.100.1",
    "198.51.100.1:80": "198.51.100.1",
    "198.51.100.1:_port": "198.51.100.1",
    '"198.51.100.1:80"': "198.51.100.1",
    "[2001:db8::1]": "2001:db8::1",
    "[2001:db8::1]:65535": "2001:db8::1",
    '"[2001:db8::1]"': "2001:db8::1",
    "2001:db8::1": "2001:db8::1",
    "fe80::1%eth0": "fe80::1%eth0",
    "::": "::",
    "unknown": "unknown",
    "_hidden": "_hidden",
    "198.51.100.1:": "",
    "198.51.100.1:123456": "",
    "[2001:db8::1": "",
    "[2001:db8::1]80": "",
    "[2001:db8::1]:": "",
    '"': '"',
    "": "",
}


@pytest.mark.parametrize(("node", "host"), NODES.items(), ids=NODES)
def test_the_host_of_a_node(node: str, host: str) -> None:
    """The host is found without a port, brackets and quotes."""
    assert host == host_of_node(node)


@pytest.mark.parametrize(
    ("header", "elements"),
    [
        ("for=a", [{"for": "a"}]),
        ('for="a;b,c";by=d , proto=e', [{"for": "a;b,c", "by": "d"}, {"proto": "e"}]),
        ('for="a\\"b\\\\"', [{"for": 'a"b\\'}]),
        ("for=a,,for=b", [{"for": "a"}, {"for": "b"}]),
        (" ; for=a ; ", [{"for": "a"}]),
        ("for=a for=b", []),
        ('for="a', []),
        ('for="a"b', []),
        ("for", []),
        ("=a", []),
        ("", []),
    ],
)
def test_the_elements_of_forwarded(header: str, elements: list[dict[str, str]]) -> None:
    """The elements have their parameters, in order; there are none if any is malformed."""
    assert elements == elements_of(header)


@given(st.text(st.sampled_from('for=;,"\\ ab.1:[]\t'), max_size=40))
def test_whatever_is_written(text: str) -> None:
    """No text raises an error."""
    for name in ("X-Forwarded-For", "Forwarded"):
        forwarded_for(HTTPHeaders({name: text}))
        forwarded_proto(HTTPHeaders({name: text}))
