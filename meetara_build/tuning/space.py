"""The settings that a search may try: the keys that build.yaml's ``tuning.space`` names, and the
values of each."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from meetara_build.config.schema import Lora, Range, Shape, Training
from meetara_build.errors import ConfigError, nearest

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial

Settings = dict[str, Any]
"""Values by dotted key: ``{"training.learning_rate": 0.002}``."""

SECTIONS: dict[str, type[Shape]] = {"lora": Lora, "training": Training}
OTHER = {"training.schedule", "training.warm_start"}
"""Keys of these sections that have one value only, or name an artifact."""
DIGITS = 3
"""Significant digits of a chosen number: as many as a person would write, and more than make a
difference."""


class Dimension(NamedTuple):
    """One key: either ``choices``, or from ``low`` to ``high``; ``whole`` numbers only where the
    key takes no others.

    Of ``ordered`` choices, numbers from the lowest to the highest, a sampler sees the places: that
    8 is nearer to 16 than to 64.
    """

    key: str
    low: float | int | None
    high: float | int | None
    log: bool
    choices: tuple[Any, ...] | None
    whole: bool
    ordered: bool

    def distribution(self) -> "BaseDistribution":
        """As Optuna has it."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices is not None:
            return (
                IntDistribution(0, len(self.choices) - 1)
                if self.ordered
                else CategoricalDistribution(self.choices)
            )
        assert self.low is not None and self.high is not None
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(float(self.low), float(self.high), log=self.log)

    def suggested(self, trial: "BaseTrial") -> Any:
        """The value that a trial is to try."""
        if self.choices is not None and self.ordered:
            return self.choices[trial.suggest_int(self.key, 0, len(self.choices) - 1)]
        if self.choices is not None:
            return trial.suggest_categorical(self.key, self.choices)
        assert self.low is not None and self.high is not None
        if self.whole:
            return trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log)
        value = trial.suggest_float(self.key, float(self.low), float(self.high), log=self.log)
        return min(max(_round(value), float(self.low)), float(self.high))

    def parameter(self, value: Any) -> Any:
        """A value as the sampler has it."""
        return self.choices.index(value) if self.choices is not None and self.ordered else value

    def holds(self, value: Any) -> bool:
        """Whether a value is one that may be tried."""
        if self.choices is not None:
            return value in self.choices
        return (
            _is_number(value)
            and self.low <= value <= self.high
            and (not self.whole or isinstance(value, int))
        )

    def with_value(self, value: Any) -> "Dimension":
        """The same, with one more value that may be tried."""
        if self.holds(value):
            return self
        if self.choices is not None:
            choices = (*self.choices, value)
            return self._replace(choices=tuple(sorted(choices)) if self.ordered else choices)
        if not _is_number(value) or (self.log and value <= 0):
            raise ConfigError(
                f"conf/build.yaml: tuning.space: {self.key} is {value!r} now, which is no number "
                "of a range; give choices that hold it, or remove the key"
            )
        assert self.low is not None and self.high is not None
        return self._replace(low=min(self.low, value), high=max(self.high, value))


class Space(NamedTuple):
    """The keys that are searched; ``current`` are their values as configured, which may always be
    tried."""

    dimensions: tuple[Dimension, ...]
    current: Settings

    def distributions(self) -> "dict[str, BaseDistribution]":
        """As Optuna has them."""
        return {dimension.key: dimension.distribution() for dimension in self.dimensions}

    def holds(self, settings: Mapping[str, Any]) -> bool:
        """Whether all of these, and no others, are values that may be tried.

        Optuna itself would run an enqueued value that is out of range.
        """
        known = {dimension.key: dimension for dimension in self.dimensions}
        return set(settings) == set(known) and all(
            known[key].holds(value) for key, value in settings.items()
        )

    def suggested(self, trial: "BaseTrial") -> Settings:
        """The settings that a trial is to try; the sampler's numbers have few digits."""
        return {dimension.key: dimension.suggested(trial) for dimension in self.dimensions}

    def parameters(self, settings: Settings) -> dict[str, Any]:
        """Settings as the sampler has them."""
        return {
            dimension.key: dimension.parameter(settings[dimension.key])
            for dimension in self.dimensions
        }

    def without(self, keys: Collection[str]) -> "Space":
        """The space of the other keys."""
        kept = tuple(dimension for dimension in self.dimensions if dimension.key not in keys)
        return Space(kept, {dimension.key: self.current[dimension.key] for dimension in kept})

    def content(self) -> Any:
        """What tells one space from another, as JSON values."""
        return [list(dimension) for dimension in self.dimensions]


def read_space(ranges: Mapping[str, Range], recipe: Mapping[str, Any], where: str) -> Space:
    """The space that ``tuning.space`` describes, for a domain's adapter recipe.

    Raises:
        ConfigError: a key is none that the adapter's training reads, or a value none that the key
            takes.
    """
    dimensions, current = [], {}
    for key, given in sorted(ranges.items()):
        value = _current(key, recipe, where)
        choices = None if given.choices is None else tuple(given.choices)
        for tried in choices or (given.low, given.high):
            _check(key, tried, recipe, where)
        whole = choices is None and not _takes(key, (given.low + given.high) / 2.0, recipe)  # type: ignore[operator]
        ordered = choices is not None and all(_is_number(one) for one in (*choices, value))
        if choices is not None and ordered:
            choices = tuple(sorted(choices))
        made = Dimension(key, given.low, given.high, given.log, choices, whole, ordered)
        dimensions.append(made.with_value(value))
        current[key] = value
    return Space(tuple(dimensions), current)


def apply_settings(recipe: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """An adapter recipe with these settings in the place of its own."""
    sections = {name: dict(recipe[name]) for name in SECTIONS}
    for key, value in settings.items():
        section, _, name = key.partition(".")
        sections[section][name] = value
    return {**recipe, **sections}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _round(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def read_settings(recipe: Mapping[str, Any], keys: Sequence[str]) -> Settings | None:
    """A recipe's values of these keys; None where it lacks one."""
    found = {}
    for key in keys:
        section, _, name = key.partition(".")
        if name not in recipe.get(section, {}):
            return None
        found[key] = recipe[section][name]
    return found


def searchable(recipe: Mapping[str, Any]) -> list[str]:
    """The keys that a search may try: numbers, words and switches that the adapter's training
    reads."""
    found = [f"{section}.{name}" for section in SECTIONS for name in recipe[section]]
    return [
        key
        for key in found
        if key not in OTHER and not isinstance(_value(key, recipe), list | dict)
    ]


def _value(key: str, recipe: Mapping[str, Any]) -> Any:
    section, _, name = key.partition(".")
    return recipe[section][name]


def _current(key: str, recipe: Mapping[str, Any], where: str) -> Any:
    known = searchable(recipe)
    if key not in known:
        raise ConfigError(
            f"{where}: tuning.space: '{key}' is no key that tuning can try{nearest(key, known)}"
        )
    return _value(key, recipe)


def _check(key: str, value: Any, recipe: Mapping[str, Any], where: str) -> None:
    if not _takes(key, value, recipe):
        raise ConfigError(
            f"{where}: tuning.space.{key}: {value!r} is no value for this key; see its line in "
            "conf/build.yaml"
        )


def _takes(key: str, value: Any, recipe: Mapping[str, Any]) -> bool:
    section, _, name = key.partition(".")
    shape = SECTIONS[section]
    own = {"checkpoint_seconds": 60, "loss_on_prompt": False} if shape is Training else {}
    content = (
        {**own, **recipe[section], "warm_start": None}
        if shape is Training
        else dict(recipe[section])
    )
    try:
        shape.model_validate({**content, name: value})
    except ValidationError:
        return False
    return True
