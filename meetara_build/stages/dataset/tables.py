"""Parquet files, and data sets of a hub or of a local folder; their rows count from 1."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from meetara_build.errors import DataError
from meetara_build.outside import first_line, show_line
from meetara_build.stages.dataset.records import Fault, Row
from meetara_build.stages.dataset.text_files import refuse_other

SAVED = ("dataset_info.json", "dataset_dict.json", "state.json")
PARQUET = b"PAR1"


def read_parquet(path: Path, name: str) -> Iterator[Row | Fault]:
    """The rows of a Parquet file: maps as objects, bytes that are UTF-8 as text.

    Raises:
        DataError: the file is not Parquet or not whole, or two of its columns have one name.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        _refuse_other(path, name)
        file = parquet.ParquetFile(path)
        columns = [str(column) for column in file.schema_arrow.names]
        has_bytes = "binary" in str(file.schema_arrow)
        if twice := sorted({column for column in columns if columns.count(column) > 1}):
            raise DataError(
                f"{name}: two columns are called '{show_line(twice[0])}': rename one of them"
            )
        number = 0
        for batch in file.iter_batches(batch_size=1024):
            for values in _rows(batch):
                number += 1
                if values is None:
                    yield Fault(name, number, None, "holds a map with one key twice")
                else:
                    yield Row(name, number, _decode(values) if has_bytes else values)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{name}: cannot be read as Parquet: {first_line(error)}: check that the file is whole"
        ) from None


def _rows(batch: Any) -> list[dict[str, Any] | None]:
    """The rows of a batch; None for one whose maps have a key twice, which would lose a value."""
    try:
        return list(batch.to_pylist(maps_as_pydicts="strict"))
    except KeyError:
        if len(batch) == 1:
            return [None]
    return [row for at in range(len(batch)) for row in _rows(batch.slice(at, 1))]


def _decode(value: Any) -> Any:
    """The value with text in the place of bytes that are UTF-8: some writers know no type for
    text."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value
    if isinstance(value, list):
        return [_decode(one) for one in value]
    if isinstance(value, dict):
        return {_decode(key): _decode(one) for key, one in value.items()}
    return value


def _refuse_other(path: Path, name: str) -> None:
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"\x1f\x8b"):
        raise DataError(f"{name}: is packed by gzip, which only text files may be: unpack it")
    if not head.startswith(PARQUET):
        refuse_other(head, name)


def is_saved(folder: Path) -> bool:
    """Whether a folder is a data set as the library ``datasets`` saves it, which it alone can
    read."""
    return any((folder / file).is_file() for file in SAVED)


def read_hub(path: Path | None, hub: str, split: str, revision: str | None = None) -> Iterator[Row]:
    """The rows of one split of a data set: a local folder, or a hub id at a commit where ``path``
    is None."""
    name = path.name if path else hub
    with tempfile.TemporaryDirectory(prefix="meetara-") as cache:
        # A folder's own files are the truth; a copy of them in the user's cache would outlive their
        # edits.
        data = _load(path, hub, split, revision, cache if path else None)
        for number, values in enumerate(data, 1):
            yield Row(name, number, dict(values))


def _load(path: Path | None, hub: str, split: str, revision: str | None, cache: str | None) -> Any:
    import datasets

    where = f"data set folder {path.name}" if path else f"hub data set {hub}"
    # A progress bar of another library in the middle of ours helps nobody.
    datasets.disable_progress_bars()
    try:
        if path and is_saved(path):
            data = datasets.load_from_disk(str(path))
            if isinstance(data, datasets.DatasetDict):
                return data[split]
            return data
        return datasets.load_dataset(
            str(path or hub), split=split, revision=revision, cache_dir=cache
        )
    except KeyError:
        raise DataError(
            f"{where}: has no split '{split}', only {', '.join(sorted(data))}: set `split:`"
        ) from None
    except Exception as error:  # `datasets` raises whatever the library below it raised
        last = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{where}: split '{split}' cannot be loaded: {last}: "
            "check the name and the split; a single file can be named directly"
        ) from None
