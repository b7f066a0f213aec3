"""``conf/safety/LANGUAGE.yaml``: reviewed lists that answers in a language are held to."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from meetara_build.config.schema.checking import Shape
from meetara_build.config.schema.values import require_form

PhoneNumber = Annotated[str, require_form("[0-9]{2,15}", "a number's digits, in quotes")]
Region = Annotated[str, Field(pattern="^[A-Z]{2}$", description="two capital letters")]
Helper = Literal[
    "emergency",
    "poison_centre",
    "crisis_line",
    "doctor",
    "pharmacist",
    "therapist",
    "lawyer",
    "adviser",
    "police",
]
Unit = Literal[
    "mg",
    "mcg",
    "g",
    "ml",
    "l",
    "IU",
    "unit",
    "kcal",
    "tablet",
    "drop",
    "puff",
    "teaspoon",
    "tablespoon",
]
Currency = Annotated[str, Field(pattern="^[A-Z]{3}$", description="three capital letters")]
Words = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]


class Safety(Shape):
    """``conf/safety/LANGUAGE.yaml``: what answers in a language are held to. A person reviews it.

    ``*`` at the beginning or the end of a word stands for any letters.
    """

    description: str
    """The language, for people."""
    as_of: str
    """When the numbers held."""
    source: str
    """Where the numbers are from."""
    emergency: Annotated[
        dict[Region, Annotated[list[PhoneNumber], Field(min_length=1)]], Field(min_length=1)
    ]
    """By region (a country's two letters, or EU), the emergency numbers, crisis lines and poison
    centres that an answer may name."""
    sites: list[str] = []
    """Addresses of the web and of mail that an answer may name."""
    call: Words
    """Words that tell somebody to call a number."""
    emergency_number: Words
    """Words for a number in need: "the emergency number is …"."""
    call_follows: bool = False
    """Whether the number comes before the word that tells to call it."""
    call_joins: list[str] = []
    """Words that may stand right before a number that is called; where the number comes first,
    between it and the word that tells to call."""
    counted: list[str] = []
    """Words after a number that make it a count and no number to call: minutes, people."""
    turn_to: Annotated[dict[Helper, Words], Field(min_length=1)]
    """By kind of helper, the words that name one."""
    numbers: Annotated[dict[str, Annotated[float, Field(ge=0)]], Field(min_length=1)]
    """Number words, and what they are."""
    decimal_comma: bool = False
    """Whether a point before three digits parts thousands: 1.000 is a thousand."""
    repeats: dict[str, Annotated[int, Field(ge=2, le=3)]] = {}
    """Words for a digit said so often: `triple` nine."""
    choice: Words
    """Words between two that may be chosen: or."""
    between: Words
    """Words between two numbers of a range or a choice, or between a number and its unit."""
    units: Annotated[dict[Unit, Words], Field(min_length=1)]
    """Words for units of a dose; the signs (mg, ml …) are known in every language."""
    money: dict[Currency, Words]
    """By currency, words for it; the signs ($, € …) are known in every language."""
    law: Words
    """Words before the number of a section of law."""
    acts: list[str] = []
    """Words at the end of a statute's name."""

    @field_validator("numbers", mode="before")
    @classmethod
    def _whole_numbers_too(cls, given: object) -> object:
        """YAML reads ``1`` as a whole number."""
        if not isinstance(given, dict):
            return given
        return {
            word: float(number) if type(number) is int else number for word, number in given.items()
        }
