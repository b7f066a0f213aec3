"""Importance matrices in files, in the form of llama.cpp's own tools: ``llama-quantize --imatrix``
takes them too."""

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from meetara_build.errors import ArtifactError

Imatrix = Mapping[str, npt.NDArray[np.float32]]
"""Mean squared input of each column of a weight, by GGUF tensor name."""

FILE = "imatrix.gguf"
_SUMS, _COUNTS = ".in_sum2", ".counts"


def write_imatrix(path: Path, sums: Imatrix, tokens: int, window: int) -> None:
    """Write sums of squared inputs over so many tokens, read in windows of ``window``."""
    writer = gguf.GGUFWriter(path, "imatrix")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["sample.jsonl"])
    writer.add_uint32("imatrix.chunk_count", -(-tokens // window))
    writer.add_uint32("imatrix.chunk_size", window)
    for name, total in sorted(sums.items()):
        writer.add_tensor(name + _SUMS, total.reshape(1, -1))
        writer.add_tensor(name + _COUNTS, np.full((1, 1), tokens, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_imatrix(path: Path) -> Imatrix:
    """Means from a file of sums and counts.

    Raises:
        ArtifactError: it is no such file.
    """
    try:
        found = {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}
        means = {
            name.removesuffix(_SUMS): data.reshape(-1)
            / found[name.removesuffix(_SUMS) + _COUNTS].reshape(-1)[0]
            for name, data in found.items()
            if name.endswith(_SUMS)
        }
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise ArtifactError(
            f"{path.name}: not an importance matrix, or one cut short. Build the imatrix stage "
            "again."
        ) from error
    return {name: np.ascontiguousarray(mean, np.float32) for name, mean in means.items()}
