"""The characters that a new name may have: visible ones, and joiners only where they join.

Which characters are invisible, and where joiners join, follows from properties of Unicode (UAX #31, section 2.3; UTS
#39; UTS #51). With invisible characters, any number of names could look the same. Names that the user table already has
are not checked.
"""

from __future__ import annotations

import unicodedata

import regex

__all__ = ["hides", "is_blank", "with_joiners", "without_twins"]

# Default_Ignorable_Code_Point, and symbols without a visible form: BRAILLE PATTERN BLANK, KHITAN SMALL SCRIPT
# FILLER, MUSICAL SYMBOL NULL NOTEHEAD, OBJECT REPLACEMENT CHARACTER.
_UNSEEN = regex.compile(r"[\p{Default_Ignorable_Code_Point}\u2800\U00016FE4\U0001D159\uFFFC]")

_SEEN = regex.compile(r"[\p{L}\p{N}\p{P}\p{S}]")

_JOINING = regex.compile(
    r"""
    # ZERO WIDTH NON-JOINER between two letters that would join, as in Persian.
      (?<=[\p{Joining_Type=Left_Joining}\p{Joining_Type=Dual_Joining}]\p{Joining_Type=Transparent}*)
      \u200C
      (?=\p{Joining_Type=Transparent}*[\p{Joining_Type=Right_Joining}\p{Joining_Type=Dual_Joining}])
    # Either joiner between a virama and a letter, as in the scripts of India.
    | (?<=\p{Canonical_Combining_Class=Virama}) [\u200C\u200D] (?=\p{L})
    # ZERO WIDTH JOINER between two emoji.
    | (?<=\p{Extended_Pictographic}[\uFE0F\p{Emoji_Modifier}]?) \u200D (?=\p{Extended_Pictographic})
    # VARIATION SELECTOR-16 where it makes an emoji of a symbol, or of a digit a keycap.
    | (?<=[\p{Emoji}--\p{Emoji_Presentation}--[0-9\#*]]) \uFE0F
    | (?<=[0-9\#*]) \uFE0F (?=\u20E3)
    # The tags of the three flags that are written with them: England, Scotland, Wales.
    | (?<=\U0001F3F4) \U000E0067\U000E0062
      (?: \U000E0065\U000E006E\U000E0067 | \U000E0073\U000E0063\U000E0074 | \U000E0077\U000E006C\U000E0073 )
      \U000E007F
    """,
    regex.VERBOSE | regex.VERSION1,
)


def with_joiners(text: str) -> str:
    """Return the text without the joiners and selectors that change how it looks."""
    return str(_JOINING.sub("", text))


def hides(text: str) -> bool:
    """Return whether a text has invisible characters. A space is visible."""
    return not text.isprintable() or _UNSEEN.search(text) is not None


def is_blank(text: str) -> bool:
    """Return whether a text has no visible character."""
    return _SEEN.search(text) is None


def without_twins(text: str) -> bool:
    """Return whether no other text looks the same through other forms of its letters or a different number of spaces.

    Letters are in their usual form (NFKC), no accent stands by itself, and no two spaces follow each other.
    """
    accents = any("\u0300" <= letter <= "\u036f" for letter in text)
    return unicodedata.normalize("NFKC", text) == text and not accents and "  " not in text
