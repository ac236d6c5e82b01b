"""Passwords as text: the one form that is hashed, independent of the keyboard.

An accented letter can be typed as one character or as two (NFC, NFD), and a space as one of several. The device
decides, and the user sees no difference. New passwords are hashed in the form of PRECIS's OpaqueString (RFC 8265,
section 4.2): spaces become U+0020, and the text is normalised to NFC. Older passwords were hashed as they were typed.
"""

from __future__ import annotations

import unicodedata

__all__ = ["LONGEST", "TOO_MANY", "forms_of", "prepared"]

LONGEST = 72  # bytes, which is bcrypt's bound
TOO_MANY = "too many passwords are waiting to be checked; try again in a moment"


def prepared(password: str) -> str:
    """Return the form of a password that is hashed."""
    if password.isascii():
        return password
    spaced = "".join(" " if unicodedata.category(letter) == "Zs" else letter for letter in password)
    return unicodedata.normalize("NFC", spaced)


def forms_of(password: str) -> list[bytes]:
    """Return the forms in which a password may have been hashed, the likeliest first.

    A form that is too long for bcrypt is left out.
    """
    forms = dict.fromkeys((prepared(password).encode(), password.encode()))
    return [form for form in forms if len(form) <= LONGEST]
