"""The one naming rule: model class -> plural snake_case table, and the reverse names of relations.

Rule: split at capitals (`SsoSession` -> `sso_session`), make the last word plural: irregular words by the list below,
words that have no plural stay, -y after a consonant -> -ies, -s -x -z -ch -sh -> -es, else -s.
"""

import re

IRREGULAR = {
    "child": "children", "datum": "data", "foot": "feet", "goose": "geese", "half": "halves", "index": "indexes",
    "knife": "knives", "leaf": "leaves", "life": "lives", "man": "men", "matrix": "matrices", "mouse": "mice",
    "person": "people", "quiz": "quizzes", "shelf": "shelves", "tooth": "teeth", "wife": "wives", "wolf": "wolves",
    "woman": "women", "hero": "heroes", "potato": "potatoes", "tomato": "tomatoes",
}  # fmt: skip
UNCOUNTABLE = frozenset(
    [
        "analytics",
        "data",
        "equipment",
        "feedback",
        "fish",
        "information",
        "media",
        "metadata",
        "money",
        "news",
        "rice",
        "series",
        "sheep",
        "software",
        "species",
        "staff",
        "weather",
    ]
)
_CAPITALS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def snake(name: str) -> str:
    """Turn CamelCase into snake_case: ``HTTPServer`` -> ``http_server``."""
    return _CAPITALS.sub("_", name).lower()


def plural(name: str) -> str:
    """Make the last word of a snake_case name plural."""
    head, _, word = name.rpartition("_")
    if word in UNCOUNTABLE:
        many = word
    elif word in IRREGULAR:
        many = IRREGULAR[word]
    elif word.endswith("y") and word[-2:-1] not in ("", *"aeiou"):
        many = word[:-1] + "ies"
    elif word.endswith(("s", "x", "z", "ch", "sh")):
        many = word + "es"
    else:
        many = word + "s"
    return f"{head}_{many}" if head else many


def table_name(model: str) -> str:
    """Return the table of a model that names none itself."""
    return plural(snake(model))
