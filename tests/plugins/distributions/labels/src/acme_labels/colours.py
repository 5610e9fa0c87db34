"""A class of this package's own, and the field type that stores it."""

from dataclasses import dataclass

from dataflow.types import StrType, ValueRefused


@dataclass(frozen=True)
class Colour:
    """A colour, as six hexadecimal digits."""

    code: str


class ColourType(StrType):
    """Colours, stored as text."""

    name = "Colour"

    def accept(self, value):
        if not isinstance(value, Colour):
            message = f"expected Colour, got {type(value).__name__}"
            raise ValueRefused(message)
        return value.code

    def restore(self):
        return Colour
