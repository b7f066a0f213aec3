"""Parquet files, and data sets of a hub or of a local folder; their rows count from 1."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from meetara_build.errors import DataError
from meetara_build.stages.dataset.records import Row

SAVED = ("dataset_info.json", "dataset_dict.json", "state.json")


def read_parquet(path: Path, name: str) -> Iterator[Row]:
    """The rows of a Parquet file."""
    import pyarrow
    from pyarrow import parquet

    try:
        number = 0
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=1024):
            for values in batch.to_pylist():
                number += 1
                yield Row(name, number, values)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{name}: cannot be read as Parquet: {error}: check that the file is whole") from None


def parquet_columns(path: Path, name: str) -> list[str]:
    """The names of a Parquet file's columns."""
    import pyarrow
    from pyarrow import parquet

    try:
        return [str(column) for column in parquet.read_schema(path).names]
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{name}: cannot be read as Parquet: {error}: check that the file is whole") from None


def read_hub(path: Path | None, hub: str, split: str, revision: str | None = None) -> Iterator[Row]:
    """The rows of one split of a data set: a local folder, or a hub id at a commit where ``path`` is None."""
    name = path.name if path else hub
    with tempfile.TemporaryDirectory(prefix="meetara-") as cache:
        # A folder's own files are the truth; a copy of them in the user's cache would outlive their edits.
        data = _load(path, hub, split, revision, cache if path else None)
        for number, values in enumerate(data, 1):
            yield Row(name, number, dict(values))


def _load(path: Path | None, hub: str, split: str, revision: str | None, cache: str | None) -> Any:
    import datasets

    where = f"data set folder {path.name}" if path else f"hub data set {hub}"
    # A progress bar of another library in the middle of ours helps nobody.
    datasets.disable_progress_bars()
    try:
        if path and any((path / file).is_file() for file in SAVED):
            data = datasets.load_from_disk(str(path))
            if isinstance(data, datasets.DatasetDict):
                return data[split]
            return data
        return datasets.load_dataset(str(path or hub), split=split, revision=revision, cache_dir=cache)
    except KeyError:
        raise DataError(f"{where}: has no split '{split}', only {', '.join(sorted(data))}: set `split:`") from None
    except Exception as error:  # `datasets` raises whatever the library below it raised
        last = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{where}: split '{split}' cannot be loaded: {last}: "
            "check the name and the split; a single file can be named directly"
        ) from None
