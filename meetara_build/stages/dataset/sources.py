"""The sources that a domain's file names, as rows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePath

from meetara_build.errors import DataError
from meetara_build.stages.dataset import csv_files, json_files, tables
from meetara_build.stages.dataset.records import Fault, Row
from meetara_build.stages.dataset.text_files import HEAD, refuse_other, unpack
from meetara_build.stages.recipes.preparation import SourceRecipe

SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}


@dataclass(frozen=True)
class Reading:
    """All that one source holds: its ``columns`` in order of appearance, good rows, faults, records
    read."""

    name: str
    columns: list[str]
    rows: list[Row]
    faults: list[Fault]

    @property
    def read(self) -> int:
        """How many records it holds, good and bad."""
        return len(self.rows) + len(self.faults)


def read_source(source: SourceRecipe, path: Path | None) -> Reading:
    """The rows of a source, at most its ``limit``.

    Raises:
        DataError: the source is missing, empty, of an unknown format, or not what its format says.
    """
    name = source.name
    items = _rows(source, path, name)
    rows: list[Row] = []
    faults: list[Fault] = []
    columns: dict[str, None] = {}
    for item in islice(items, source.limit):
        if isinstance(item, Row):
            item = Row(name, item.line, item.values)
            columns.update(dict.fromkeys(item.values))
            rows.append(item)
        else:
            faults.append(item)
    if not rows and not faults:
        raise DataError(
            f"{name}: holds no records: add some, or take it out of the domain's sources"
        )
    return Reading(name, list(columns), rows, faults)


def find_format(path: Path, name: str) -> str | None:
    """The format that a path's suffix stands for; a folder is a data set of the ``datasets``
    library. None: it says nothing.

    Raises:
        DataError: the suffix says nothing, and the file is an archive, a workbook …
    """
    if path.is_dir():
        return "hub"
    known = SUFFIXES.get(_suffix(path)) or SUFFIXES.get(_suffix(PurePath(name)))
    if known is None and path.is_file():
        with unpack(path, name) as file:
            refuse_other(file.read(HEAD), name)
    return known


def _suffix(path: PurePath) -> str:
    """The ending that tells the format: ``.csv`` of ``a.csv.gz`` too."""
    return PurePath(path.name.lower().removesuffix(".gz")).suffix


def _rows(source: SourceRecipe, path: Path | None, name: str) -> Iterator[Row | Fault]:
    if path is None:
        hub, split = source.hub or name, source.split
        return tables.read_hub(None, hub, split, source.revision)
    if not path.exists():
        raise DataError(f"{name}: no such file or folder: mend the path in the domain's sources")
    kind = source.format or find_format(path, name)
    if kind is None:
        raise DataError(
            f"{name}: cannot tell its format from '{path.suffix or path.name}': set `format:` to "
            "jsonl, csv or parquet"
        )
    if path.is_dir():
        return tables.read_hub(path, name, source.split or "train")
    if kind == "hub":
        raise DataError(
            f"{name}: is a file, not a data set folder: set `format:` to jsonl, csv or parquet"
        )
    readers: dict[str, Callable[[Path, str], Iterator[Row | Fault]]] = {
        "jsonl": json_files.read_json,
        "csv": csv_files.read_csv,
        "parquet": tables.read_parquet,
    }
    if kind not in readers:
        raise DataError(f"{name}: unknown format '{kind}': use jsonl, csv, parquet or hub")
    return readers[kind](path, name)
