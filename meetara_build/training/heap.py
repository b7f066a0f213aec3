"""Memory that is free within the process, handed back to the system."""

import ctypes


def give_back_memory() -> None:
    """Hand back the pages that nothing lies on; a C library that cannot keeps them.

    Weights that were let go of leave holes between the copies that took their place, too small for
    what a training step holds: 300 of 1,300 MB on the smallest real base.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
