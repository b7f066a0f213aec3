"""How fast this machine is: the seconds of a fixed piece of work, from which estimates start where
there is no history."""

import hashlib
import json
import time
from pathlib import Path

from meetara_build.outside import parse_json
from meetara_build.store import journal
from meetara_build.store.manifest import write_cache

REPEATS = 9


def probe_seconds(kept_in: Path) -> float:
    """Seconds of the fixed work on this machine; measured once (half a second) and kept in a
    file."""
    try:
        content = parse_json(kept_in.read_bytes())
        if content["machine"] == journal.machine():
            return float(content["seconds"])
    except (OSError, ValueError, LookupError, TypeError):
        pass
    seconds = measure()
    write_cache(kept_in, json.dumps({"machine": journal.machine(), "seconds": seconds}))
    return seconds


def measure() -> float:
    """Least seconds (other work only adds) of products of matrices, hashing and plain Python, about
    as much of each as the stages mix; on one thread, as jobs run: two that wait for each other on a
    busy machine would take many times as long."""
    import numpy as np
    from threadpoolctl import threadpool_limits

    matrix = np.random.default_rng(0).standard_normal((384, 384), dtype=np.float32)
    data = bytes(8 << 20)
    taken = []
    with threadpool_limits(1):
        for _ in range(REPEATS):
            started = time.perf_counter()
            for _ in range(16):
                matrix @ matrix
            hashlib.sha256(data).digest()
            sum(number * number for number in range(300_000))
            taken.append(time.perf_counter() - started)
    return min(taken)
