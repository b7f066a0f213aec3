"""What ``precision: auto`` of a machine's file stands for here: found once for each processor, and
kept for all of a user's projects, so that it never wavers and costs nothing.
"""

import json
import os
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

from meetara_build.outside import parse_json
from meetara_build.setup.places import cache_folder
from meetara_build.store import journal
from meetara_build.store.manifest import write_cache

AUTO, FLOAT32, BFLOAT16 = "auto", "float32", "bfloat16"
PROBE = "meetara_build.training.precision"
PROBE_SECONDS = 120.0
PROCESSOR = Path("/proc/cpuinfo")


def resolve_precision(said: str) -> str:
    """``auto`` as float32 or bfloat16; anything else as it is."""
    return _find_best() if said == AUTO else said


def kept_file() -> Path:
    """Where the answers lie, one for each processor and version of torch; deleting it has them
    found anew."""
    return cache_folder() / "precision.json"


@cache
def _find_best() -> str:
    known, key = _read_kept(), _name_machine()
    if known.get(key) in (FLOAT32, BFLOAT16):
        return known[key]
    if not _may_have_bfloat16():
        return FLOAT32
    found = _ask_torch()
    if found is None:
        return FLOAT32
    write_cache(kept_file(), json.dumps({**_read_kept(), key: found}, indent=1) + "\n")
    return found


def _read_kept() -> dict[str, str]:
    try:
        content = parse_json(kept_file().read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _name_machine() -> str:
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        version = "none"
    return f"{journal.machine()} torch-{version}"


def _may_have_bfloat16() -> bool:
    """Whether the processor's flags name such arithmetic (avx512_bf16, amx_bf16, bf16); where they
    cannot be read, torch is asked."""
    try:
        return "bf16" in PROCESSOR.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True


def _ask_torch() -> str | None:
    """What a process of its own says: this one need not import torch. None where it cannot."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    said = done.stdout.strip()
    return said if said in (FLOAT32, BFLOAT16) else None
