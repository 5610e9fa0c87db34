"""Text to slugs: ASCII letters and digits in lower case, with single hyphens between the words. Knows no DataFlow."""

import re
import unicodedata

_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_SPELT = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "\u0131": "i"}
)
"""Letters that Unicode does not take apart."""


def slugify(text: str, longest: int = 80) -> str:
    """Return a slug for a text; "" where nothing of it can be written in ASCII.

    Args:
        text: any.
        longest: characters; a word that does not fit is left out, unless it is the first.
    """
    apart = unicodedata.normalize("NFKD", text.lower().translate(_SPELT)).translate(_SPELT)
    plain = "".join(letter for letter in apart if not unicodedata.combining(letter) and letter not in "'\u2019")
    joined = re.sub(r"[^\x00-\x7f]", "", re.sub(r"[^\w\s]|_", " ", plain))
    slug = "-".join(joined.split())
    if len(slug) <= longest:
        return slug
    whole, _, _ = slug[: longest + 1].rpartition("-")
    return whole or slug[:longest]


def is_slug(value: object) -> bool:
    """Tell whether a value is a slug already."""
    return isinstance(value, str) and _SLUG.fullmatch(value) is not None
