"""What answers in one language are held to, as reviewed lists say it: see ``conf/safety/``."""

from meetara_build.stages.types import Recipe


class SafetyLists(Recipe):
    """``conf/safety/LANGUAGE.yaml`` without what is for people alone; ``*`` at an end of a word
    stands for any letters.

    ``emergency`` by region, ``turn_to`` by kind of helper, ``units`` by unit, ``money`` by
    currency; a language without a file has none of them, and is judged by signs alone.
    """

    emergency: dict[str, list[str]] = {}
    sites: list[str] = []
    call: list[str] = []
    emergency_number: list[str] = []
    call_follows: bool = False
    call_joins: list[str] = []
    counted: list[str] = []
    turn_to: dict[str, list[str]] = {}
    numbers: dict[str, float] = {}
    decimal_comma: bool = False
    repeats: dict[str, int] = {}
    choice: list[str] = []
    between: list[str] = []
    units: dict[str, list[str]] = {}
    money: dict[str, list[str]] = {}
    law: list[str] = []
    acts: list[str] = []
