"""How a base's own file is quantized, for adapters to be used on."""

from meetara_build.stages.types import Recipe


class QuantizeRecipe(Recipe):
    """``quants`` are the types, ``imatrix`` whether they weigh by the base's importance matrix;
    ``tensor_types`` gives tensors a type of their own, by a regular expression over their names."""

    base: str
    quants: list[str]
    imatrix: bool
    tensor_types: dict[str, str]
    threads: int
