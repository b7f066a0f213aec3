"""What the server counts, as Prometheus reads it (text format 0.0.4)."""

import threading
from collections.abc import Iterator, Mapping

ABOUT = {
    "requests_total": ("counter", "requests for an answer, by model and HTTP status"),
    "routed_total": ("counter", "requests for auto, by the domain that answered"),
    "prompt_tokens_total": ("counter", "tokens of conversations that were read, by model"),
    "answer_tokens_total": ("counter", "tokens that were written, by model"),
    "answer_seconds_total": ("counter", "seconds that answers took, waiting left out, by model"),
    "wait_seconds_total": ("counter", "seconds that requests waited for their turn"),
    "given_up_total": ("counter", "answers that nobody waited for any more"),
    "reloads_total": ("counter", "times that a finished build was taken in"),
    "waiting": ("gauge", "requests that wait"),
    "domains": ("gauge", "domains, by whether they are served"),
}
PREFIX = "meetara_"
TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters, which any thread may add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values = dict[tuple[str, tuple[tuple[str, str], ...]], float]()

    def add(self, name: str, value: float = 1, **labels: str) -> None:
        """Count ``value`` more."""
        with self._lock:
            key = name, tuple(sorted(labels.items()))
            self._values[key] = self._values.get(key, 0) + value

    def text(self, gauges: Mapping[tuple[str, str], float]) -> str:
        """All of them, and gauges as they stand now, by name and ``label=value``."""
        with self._lock:
            values = dict(self._values)
        for (name, label), value in gauges.items():
            key, _, of = label.partition("=")
            values[name, ((key, of),) if key else ()] = value
        return "\n".join(_write(values)) + "\n"


def _write(values: Mapping[tuple[str, tuple[tuple[str, str], ...]], float]) -> Iterator[str]:
    for name, (kind, about) in ABOUT.items():
        yield f"# HELP {PREFIX}{name} {about}"
        yield f"# TYPE {PREFIX}{name} {kind}"
        for (of, labels), value in sorted(values.items()):
            if of == name:
                shown = ",".join(f'{key}="{_escape(text)}"' for key, text in labels)
                yield f"{PREFIX}{name}{f'{{{shown}}}' if shown else ''} {value:g}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
