"""Certificates for tests: self-signed ones, and those that a CA has issued."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class Pair(NamedTuple):
    """The files of a certificate and its key, in PEM."""

    certfile: Path
    keyfile: Path


class Authority:
    """A CA with its certificate in `file`, which issues certificates into its directory."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        authority = x509.BasicConstraints(ca=True, path_length=0)
        made = _unsigned(self._name, self._name, self._key).add_extension(authority, critical=True)
        self.file = _write(directory / f"{name}.pem", made.sign(self._key, hashes.SHA256()))

    def issue(self, name: str) -> Pair:
        """Return a certificate for a host name, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        made = _unsigned(_named(name), self._name, key).add_extension(names, critical=False)
        signed = made.sign(self._key, hashes.SHA256())
        return Pair(_write(self._directory / f"{name}.pem", signed), _write(self._directory / f"{name}-key.pem", key))


def certificate(directory: Path, name: str) -> Pair:
    """Return a self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = _unsigned(_named(name), _named(name), key).sign(key, hashes.SHA256())
    return Pair(_write(directory / "cert.pem", made), _write(directory / "key.pem", key))


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _unsigned(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


def _write(path: Path, made: x509.Certificate | ec.EllipticCurvePrivateKey) -> Path:
    if isinstance(made, x509.Certificate):
        path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        return path
    path.touch(mode=0o600)
    path.write_bytes(
        made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path
