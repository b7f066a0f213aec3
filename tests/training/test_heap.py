"""Free memory goes back to the system."""

import ctypes
from pathlib import Path

import pytest
import torch

from meetara_build.training import heap
from meetara_build.training.heap import give_back_memory


def resident_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")
def test_holes_between_what_stays_are_handed_back() -> None:
    held = [torch.ones(16 * 1024) for _ in range(2000)]  # 64 KiB each, too small to be mapped alone
    del held[::2]
    before = resident_bytes()
    give_back_memory()
    assert resident_bytes() < before - 1000 * 64 * 1024 // 2
    assert len(held) == 1000


def test_another_c_library_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: object())
    give_back_memory()
