"""The queue, and the one thread that computes: answers one after another, and between two of them
whatever has to happen alone."""

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple, TypeVar

from meetara_build.errors import BusyError
from meetara_build.serving.generation import End, Sampling, write_text
from meetara_build.serving.metrics import Metrics
from meetara_build.serving.models import Models

WAITING = 16
"""Requests that may wait; more are told to come again."""

T = TypeVar("T")


class Begun(NamedTuple):
    """An answer begins: its conversation has so many tokens."""

    prompt_tokens: int


Event = Begun | str | End | Exception
"""What is told of an answer: that it begins, its pieces, its end; or why there is none."""


class Job:
    """A request for an answer; ``tell`` is called in the worker's thread with each event."""

    def __init__(
        self,
        model: str,
        turns: Sequence[Mapping[str, str]],
        sampling: Sampling,
        tell: Callable[[Event], None],
    ) -> None:
        self.model, self.turns, self.sampling, self.tell = model, turns, sampling, tell
        self.since = time.monotonic()
        self._given_up = threading.Event()

    def give_up(self) -> None:
        """Nobody waits for the answer any more."""
        self._given_up.set()

    def is_wanted(self) -> bool:
        """Whether somebody still waits for it."""
        return not self._given_up.is_set()


class Worker:
    """One thread, which has the models for itself."""

    def __init__(self, models: Models, metrics: Metrics) -> None:
        self.models, self.metrics = models, metrics
        self._jobs: queue.Queue[Job | Callable[[], None] | None] = queue.Queue()
        self._waiting = 0
        self._seconds = 1.0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="answers", daemon=True)
        self._current: Job | None = None
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return self._waiting

    def is_alive(self) -> bool:
        """Whether requests will be answered."""
        return self._thread.is_alive()

    def seconds_to_wait(self) -> int:
        """In about how many seconds there is room again, by how long the last answers took."""
        return max(1, round(self._seconds))

    def submit(self, job: Job) -> None:
        """Have a request wait for its turn.

        Raises:
            BusyError: too many wait already.
        """
        with self._lock:
            if self._waiting >= WAITING:
                raise BusyError(
                    f"{WAITING} requests wait already; come again in "
                    f"{self.seconds_to_wait()} seconds"
                )
            self._waiting += 1
        self._jobs.put(job)

    def call(self, work: Callable[[], T]) -> "Future[T]":
        """Have something done between two answers, in the thread that has the models."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        self._jobs.put(run)
        return future

    def stop(self) -> None:
        """End the answer that is being written, and the thread."""
        self._jobs.put(None)
        while self._thread.is_alive():
            if (current := self._current) is not None:
                current.give_up()
            self._thread.join(0.1)

    def _work(self) -> None:
        while (next_one := self._jobs.get()) is not None:
            if not isinstance(next_one, Job):
                next_one()
                continue
            with self._lock:
                self._waiting -= 1
            self._current = next_one
            try:
                self._answer(next_one)
            except Exception as error:  # a request may fail, the next one is answered
                next_one.tell(error)
            finally:
                self._current = None

    def _answer(self, job: Job) -> None:
        if not job.is_wanted():
            self.metrics.add("given_up_total")
            return
        started = time.monotonic()
        self.metrics.add("wait_seconds_total", started - job.since)
        asked = self.models.read(job.model, job.turns)
        job.tell(Begun(len(asked.prompt)))
        self.metrics.add("prompt_tokens_total", len(asked.prompt), model=job.model)
        sampling = job.sampling._replace(tokens=min(job.sampling.tokens, asked.room))
        end: Event | None = None
        answering = asked.base.answering
        for event in write_text(answering, asked.prompt, asked.adapter, sampling, job.is_wanted):
            job.tell(event)
            end = event
        took = time.monotonic() - started
        self._seconds += 0.2 * (took - self._seconds)
        self.metrics.add("answer_seconds_total", took, model=job.model)
        if isinstance(end, End):
            self.metrics.add("answer_tokens_total", end.tokens, model=job.model)
        else:
            self.metrics.add("given_up_total")
