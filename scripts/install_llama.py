"""Install llama-cpp-python, its converter and its gguf from one source distribution. `make setup` calls it.

llama-cpp-python is installed by name and version, so that pip keeps the wheel it built. The other two are folders of
the same source distribution, which is unpacked into a temporary folder. A second run finds all in place and ends.
"""

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from meetara_build.setup_check import LLAMA_CPP_PYTHON, PARTS, llama_fault, source_folder

NEEDED = ("gguf-py/", "conversion/")
"""Folders of llama.cpp that the two packages are built from, beside the files at its top; the rest stays packed."""


def pip(*arguments: str) -> None:
    """Run this environment's pip; its output goes to the terminal."""
    subprocess.run([sys.executable, "-m", "pip", *arguments], check=True)


def unpack(archive: Path, folder: Path) -> None:
    """Only the Python parts of llama.cpp."""
    with tarfile.open(archive) as tar:
        inside = {member: member.name.partition(f"{source_folder()}/vendor/llama.cpp/")[2] for member in tar}
        wanted = [member for member, name in inside.items() if name.startswith(NEEDED) or (name and "/" not in name)]
        # Early releases of Python 3.11 know no extraction filters.
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(folder, members=wanted, **safely)


def main() -> int:
    """Install what is missing; 0 when all fits together afterwards."""
    if llama_fault() is None:
        return 0
    pinned = f"llama-cpp-python=={LLAMA_CPP_PYTHON}"
    pip("install", pinned)
    with tempfile.TemporaryDirectory() as scratch:
        pip("download", "--no-deps", "--no-binary", "llama-cpp-python", "--dest", scratch, pinned)
        unpack(next(Path(scratch).glob("*.tar.gz")), Path(scratch))
        folders = [str(Path(scratch, source_folder(), folder)) for folder in PARTS.values()]
        pip("install", "--no-deps", "--force-reinstall", *folders)
    if fault := llama_fault():
        print(f"still wrong after installing: {fault}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
