"""Headers in which proxies name the client: X-Forwarded-For and -Proto as proxies write them, and Forwarded (RFC 7239).

If there is an X-Forwarded-For, Forwarded is ignored: most proxies write only the former, and pass on the latter as the
client sent it. handlers/http/request_policy.py decides whether a proxy is trusted.
"""

from __future__ import annotations

import re

from tornado.httputil import HTTPHeaders

__all__ = ["elements_of", "forwarded_for", "forwarded_proto", "host_of_node"]

_PORT = re.compile(r":([0-9]{1,5}|_[A-Za-z0-9._-]+)")  # of a node; RFC 7239, section 6.3
_PAIR = re.compile(r'[ \t]*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)=("(?:[^"\\]|\\.)*"|[^\s",;]*)[ \t]*')


def forwarded_for(headers: HTTPHeaders) -> list[str]:
    """Return the hosts of the nodes that sent the request, the nearest one last; "" for a hidden or malformed one."""
    listed = headers.get("X-Forwarded-For")
    if listed is not None:
        return [host_of_node(node) for node in listed.split(",")]
    return [host_of_node(element.get("for", "")) for element in elements_of(headers.get("Forwarded", ""))]


def forwarded_proto(headers: HTTPHeaders) -> str:
    """Return the scheme by which the request reached the nearest proxy, in lower case; "" if it is not given."""
    said = headers.get("X-Forwarded-Proto")
    if said is None:
        elements = elements_of(headers.get("Forwarded", ""))
        said = elements[-1].get("proto", "") if elements else ""
    return said.split(",")[-1].strip().lower()


def host_of_node(node: str) -> str:
    """Return the host of a node, without a port, brackets and quotes around it.

    "" if it is malformed. The result need not be an address.
    """
    node = node.strip()
    if len(node) >= 2 and node[0] == node[-1] == '"':
        node = node[1:-1]
    if node.startswith("["):
        host, bracket, port = node[1:].partition("]")
        return host if bracket and (not port or _PORT.fullmatch(port)) else ""
    if node.count(":") == 1:  # more of them are an IPv6 address without brackets, which has no port
        host, _, port = node.partition(":")
        return host if _PORT.fullmatch(f":{port}") else ""
    return node


def elements_of(header: str) -> list[dict[str, str]]:
    """Return the elements of a Forwarded header, each with its parameters; none if any of them is malformed.

    A quote that a client left open would take in what the proxy appended.
    """
    elements: list[dict[str, str]] = [{}]
    at = 0
    while at < len(header):
        pair = _PAIR.match(header, at)
        if pair is not None:
            name, value = pair[1].lower(), pair[2]
            if name in elements[-1]:
                return []
            elements[-1][name] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
            at = pair.end()
        elif header[at] in " \t":
            at += 1
            continue
        if at < len(header):
            if header[at] not in ",;":
                return []
            if header[at] == ",":
                elements.append({})
            at += 1
    return [element for element in elements if element]
