"""The stages: each turns a recipe and input artifacts into files, and returns its metrics."""

import importlib

NAMES = ("corpus", "base", "dataset", "adapter", "merge", "gguf", "evaluate", "package", "report")


def load_all() -> None:
    """Import every stage with all its libraries, and run nothing that would start a thread."""
    for name in NAMES:
        module = importlib.import_module(f"{__name__}.{name}")
        getattr(module, "warm", lambda: None)()
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # a job's output is a log file
