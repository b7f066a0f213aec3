"""One stage run: answered from the store, or worked out, proven whole, and only then put in its
place.

Light on imports, so that an answer from the store costs little more than starting Python.
"""

import contextlib
import fcntl
import json
import os
import resource
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from meetara_build.context.outbox import Outbox, readable
from meetara_build.engine import courier, job
from meetara_build.errors import ArtifactError, BuildError, InputChangedError, UnwritableError
from meetara_build.graph import WARM_START, Graph, Input, Step, states_file, work_folder
from meetara_build.outside import parse_json
from meetara_build.plan.workload import workload
from meetara_build.project import CACHE
from meetara_build.store import journal
from meetara_build.store.content import Store
from meetara_build.store.digests import Digests, state
from meetara_build.store.manifest import (
    CHANGED,
    Manifest,
    commit,
    describe,
    faults,
    read_manifest,
    seal,
    work_key,
    write_text,
)

LARGEST_RECIPE = 32_000
"""Characters of JSON: a recipe that names many domains' sources is left out of what is reported."""


def run(
    graph: Graph,
    step: Step,
    *,
    cold: bool = False,
    debug: bool = False,
    whole: bool = False,
    usd_per_hour: float = 0.0,
) -> str:
    """Make a step's artifact; ``built``, ``restored``, or ``held back`` where it says that a model
    does not reach what its domain asks: the run counts as failed then, and its result is kept.

    A temporary whose result is known is restored as a manifest without files, since most readers
    are answered from the store: they are made where one has to be worked out, or for ``whole``.

    ``cold`` works in this process (on a cluster's node, say) instead of asking the warm one.
    ``usd_per_hour`` is the machine's price, for the context.

    Raises:
        ArtifactError: an input is missing or damaged, or the disk cannot be written.
        BuildError: the work failed; the reason is on standard error.
    """
    started, key = time.time(), ""
    figures: dict[str, Any] = {}
    outcome, made, failure = "failed", None, None
    courier.start(graph)
    try:
        with _lock(graph.root, step):
            _recall_temporaries(graph, step, cold=cold, debug=debug)
            inputs = _input_digests(graph, step)
            key = work_key(step.stage, step.target, step.fingerprint, inputs)
            manifest = (
                _find_known(graph, step, key, inputs)
                if step.keep
                else _hollow(graph, step, key, whole=whole)
            )
            if manifest is None and _make_temporaries(graph, step, cold=cold, debug=debug):
                inputs = _input_digests(graph, step)
                key = work_key(step.stage, step.target, step.fingerprint, inputs)
            if manifest is None:
                manifest, figures = _work_out(graph, step, key, inputs, cold=cold, debug=debug)
                outcome = "built"
            else:
                outcome = "restored"
            figures["work"] = _workload(graph, step)
            made = manifest
            failure = _find_refusal(made)
            Store(graph.store, graph.root).refer(
                step.reference, key, step.place.manifest if step.keep else ""
            )
        if failure is not None:
            outcome = "failed"
            return "held back"
        return outcome
    except Exception as fault:
        failure = None if str(fault) else _read_failure(graph, step, key)
        failure = failure or job.explain(fault, str(graph.root))
        if isinstance(fault, OSError) and failure.code == UnwritableError.code:
            raise UnwritableError(failure.message) from None
        raise
    finally:
        _record(graph, step, outcome, key, started, figures, made, failure, usd_per_hour)


def _find_refusal(made: Manifest) -> job.Failure | None:
    """Why a model is held back, where that is a run's result."""
    refusal = made.held_back
    return None if refusal is None else job.Failure(refusal["message"], refusal["code"])


def _find_known(graph: Graph, step: Step, key: str, inputs: Mapping[str, str]) -> Manifest | None:
    """The result of this work that is in its place already, or else from the store."""
    current = _find_known_here(graph, step, inputs)
    if current is None:
        return _restore(graph, step, key)
    Store(graph.store, graph.root).add(key, current, graph.root / step.place.folder)
    return current


def _find_known_here(graph: Graph, step: Step, inputs: Mapping[str, str]) -> Manifest | None:
    """The result of a step's work from these inputs, if it is in its place already, and whole."""
    current = _current(graph, step)
    if current is None or (current.fingerprint, current.inputs) != (step.fingerprint, inputs):
        return None
    folder = graph.root / step.place.folder
    return (
        None if faults(folder, current, digest=Digests(states_file(graph, step)).file) else current
    )


def _restore(graph: Graph, step: Step, key: str) -> Manifest | None:
    store = Store(graph.store, graph.root)
    manifest = store.look_up(key)
    if manifest is None:
        return None
    with _output_folder(graph, step, key) as output:
        if not store.restore(key, manifest, output):
            return None
        commit(output, graph.root, step.place, manifest)
    shutil.rmtree(work_folder(graph, step, key), ignore_errors=True)
    return manifest


def _hollow(graph: Graph, step: Step, key: str, *, whole: bool) -> Manifest | None:
    """A temporary's manifest from an earlier run, put in its place without the files it names; None
    where they are needed."""
    manifest = None if whole else Store(graph.store, graph.root).recall(key)
    folder = graph.root / step.place.folder
    if manifest is None:
        return None
    there = _current(graph, step) == manifest
    if _is_read(graph, step, manifest) and not (there and not faults(folder, manifest)):
        return None
    if not there:
        shutil.rmtree(folder, ignore_errors=True)
        write_text(graph.root / step.place.manifest, manifest.text())
    return manifest


def _is_read(graph: Graph, step: Step, manifest: Manifest) -> bool:
    """Whether a step has to be worked out from a temporary's files, as far as can be told before
    that step begins."""
    store, place = Store(graph.store, graph.root), (step.stage, step.target)
    for reader in graph.steps.values():
        if place not in {(given.stage, given.target) for given in reader.inputs.values()}:
            continue
        with contextlib.suppress(ArtifactError):  # another input is not there yet
            inputs = {
                name: manifest.digest(given.reads)
                if (given.stage, given.target) == place
                else _input_digest(graph, given)
                for name, given in sorted(reader.inputs.items())
                if given.reads
            }
            key = work_key(reader.stage, reader.target, reader.fingerprint, inputs)
            if store.look_up(key) is None and _find_known_here(graph, reader, inputs) is None:
                return True
    return False


def _current(graph: Graph, step: Step) -> Manifest | None:
    try:
        return read_manifest(graph.root / step.place.manifest)
    except ArtifactError:
        return None


def _recall_temporaries(graph: Graph, step: Step, *, cold: bool, debug: bool) -> None:
    """See that the temporaries that a step reads are there, as manifests at least, and those of the
    current recipe."""
    for given in step.inputs.values():
        above = graph.step(given.stage, given.target)
        if above.keep:
            continue
        current, folder = _current(graph, above), graph.root / above.place.folder
        if current is not None and CHANGED in faults(folder, current).values():
            shutil.rmtree(folder)  # damaged; a manifest alone does as well
            current = None
        if current is None or current.fingerprint != above.fingerprint:
            run(graph, above, cold=cold, debug=debug)


def _make_temporaries(graph: Graph, step: Step, *, cold: bool, debug: bool) -> bool:
    """Make the files of the temporaries that a step reads, where only their manifests are there;
    whether any was."""
    made = False
    for given in step.inputs.values():
        above = graph.step(given.stage, given.target)
        if not above.keep and faults(
            graph.root / above.place.folder, read_manifest(graph.root / above.place.manifest)
        ):
            run(graph, above, cold=cold, debug=debug, whole=True)
            made = True
    return made


def _work_out(
    graph: Graph, step: Step, key: str, inputs: Mapping[str, str], *, cold: bool, debug: bool
) -> tuple[Manifest, dict[str, Any]]:
    with _output_folder(graph, step, key) as output:
        request = {
            "name": step.name,
            "stage": step.stage,
            "recipe": step.told,
            "inputs": _input_paths(graph, step),
            "holds": step.row.holds,
            "output": str(output),
            "threads": step.threads,
            "gpus": step.gpus,
            "root": str(graph.root),
            "about": _about(graph, step),
            "debug": debug,
            "report": str(graph.root / f"{step.log}.traceback"),
        }
        seen = _sources_seen(step)
        if _ask(request, cold=cold) != 0:
            raise BuildError("")
        figures = parse_json(output.with_name(job.FIGURES).read_bytes())
        same = _sources_seen(step) == seen and _sources(graph, step) == step.made_from["sources"]
        if not same or _input_digests(graph, step) != inputs:
            raise InputChangedError(
                f"{step.name}: an input changed during the job, so its result was not kept; build "
                "again"
            )
        seal(output)
        manifest = Manifest(
            step.stage,
            step.target,
            step.fingerprint,
            step.made_from,
            dict(inputs),
            describe(output),
            figures.pop("metrics"),
        )
        store = Store(graph.store, graph.root)
        if step.keep:
            store.add(key, manifest, output)
        else:
            store.remember(key, manifest)
        commit(output, graph.root, step.place, manifest)
    shutil.rmtree(work_folder(graph, step, key), ignore_errors=True)
    return manifest, figures


def _ask(request: Mapping[str, Any], *, cold: bool) -> int:
    if cold:
        return job.perform(request)
    from meetara_build.engine import warm

    return warm.ask(request)


@contextlib.contextmanager
def _output_folder(graph: Graph, step: Step, key: str) -> Iterator[Path]:
    """An empty folder for a result; what killed runs of the same work left is removed, but for
    their checkpoint."""
    above = work_folder(graph, step, key)
    above.mkdir(parents=True, exist_ok=True)
    for left in above.glob("out-*"):
        shutil.rmtree(left, ignore_errors=True)
    output = above / f"out-{os.getpid()}"
    output.mkdir()
    try:
        yield output
    finally:
        shutil.rmtree(output, ignore_errors=True)
        with contextlib.suppress(OSError):
            above.rmdir()


@contextlib.contextmanager
def _lock(root: Path, step: Step) -> Iterator[None]:
    """One run of a step at a time, whichever build it belongs to; freed by the kernel when the
    holder dies."""
    path = root / ".locks" / step.reference
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _input_paths(graph: Graph, step: Step) -> dict[str, str]:
    return {
        name: str(graph.root / given.place.folder) for name, given in step.inputs.items()
    } | step.sources


def _sources_seen(step: Step) -> dict[str, Any]:
    """How the raw sources look: what is changed and changed back during a job was read, for all we
    know, in between.

    A file of the store is read-only, and looks new whenever another checkout takes it too.
    """
    return {name: state(path) for name, path in step.sources.items() if name != WARM_START}


def _sources(graph: Graph, step: Step) -> dict[str, str]:
    digests = Digests(graph.project / CACHE / "digests.json")
    return {name: digests.source(path) for name, path in step.sources.items()}


def _input_digests(graph: Graph, step: Step) -> dict[str, str]:
    """Content digests of the input artifacts, each file that is read checked against its manifest;
    one of which nothing is read has to be there, and says nothing."""
    found = {name: _input_digest(graph, given) for name, given in sorted(step.inputs.items())}
    return {name: digest for name, digest in found.items() if step.inputs[name].reads}


def _input_digest(graph: Graph, given: Input) -> str:
    above, folder = graph.step(given.stage, given.target), graph.root / given.place.folder
    manifest = read_manifest(graph.root / given.place.manifest)
    if not above.keep and not (folder / next(iter(manifest.files), "")).is_file():
        return manifest.digest(given.reads)
    digests = Digests(states_file(graph, above))
    wrong = faults(folder, manifest, manifest.matching(given.reads), digests.file)
    for name, fault in wrong.items():
        raise ArtifactError(
            f"{folder / name}: {fault}; repair it with `meetara-build verify --repair "
            f"{given.target}`, or delete {graph.root / given.place.manifest} and build again"
        )
    digests.save()
    return manifest.digest(given.reads)


def _workload(graph: Graph, step: Step) -> float:
    places = {name: given.place.manifest for name, given in step.inputs.items()}
    return workload(
        step, lambda name: read_manifest(graph.root / places[name]) if name in places else None
    )


def _read_failure(graph: Graph, step: Step, key: str) -> job.Failure | None:
    """Why the job failed: it said so itself, on standard error and in this file."""
    path = work_folder(graph, step, key) / job.FAILURE
    failure = None
    with contextlib.suppress(OSError, ValueError):
        failure = job.Failure(*parse_json(path.read_bytes()))
        path.unlink()
        path.parent.rmdir()  # where no checkpoint is left beside it
    return failure


def _about(graph: Graph, step: Step) -> dict[str, str]:
    """What every report of a job says."""
    return {
        "domain": step.target,
        "stage": step.stage,
        "build": os.environ.get(journal.BUILD, ""),
        "machine": journal.machine(),
        "hardware": graph.hardware(step.target),
    }


def _cost(graph: Graph, step: Step, seconds: float, usd_per_hour: float) -> float:
    """US dollars: the job's share of the machine's price, by its threads, or by its GPUs where it
    uses any."""
    share = (
        step.gpus / step.slots / graph.gpus
        if step.gpus and graph.gpus
        else step.threads / (os.cpu_count() or 1)
    )
    return usd_per_hour * seconds / 3600 * min(share, 1.0)


def _record(
    graph: Graph,
    step: Step,
    outcome: str,
    key: str,
    started: float,
    figures: Mapping[str, Any],
    made: Manifest | None,
    failure: job.Failure | None,
    usd_per_hour: float,
) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    own = used.ru_utime + used.ru_stime
    elsewhere = 0.0 if figures.get("pid") == os.getpid() else figures.get("cpu_seconds", 0.0)
    run = journal.Run(
        step.stage,
        step.target,
        step.fingerprint,
        outcome,
        started,
        time.time() - started,
        own + elsewhere,
        figures.get("cpu_seconds", 0.0),
        figures.get("peak_mb", used.ru_maxrss / 1024),
        sum(entry["size"] for entry in made.files.values()) if made else 0,
        journal.machine(),
        failure.message if failure else None,
        key,
        figures.get("work", 0.0),
        os.environ.get(journal.BUILD, ""),
        graph.hardware(step.target),
        failure.code if failure else "",
    )
    outbox = Outbox(graph.root, **_about(graph, step))
    taken = ("outcome", "seconds", "cpu_seconds", "peak_mb", "size", "fingerprint", "key", "code")
    outbox.put(
        "run",
        **{name: getattr(run, name) for name in taken},
        usd=_cost(graph, step, run.seconds, usd_per_hour),
        error=readable(run.error),
        recipe=step.recipe if len(json.dumps(step.recipe)) < LARGEST_RECIPE else {},
        metrics=made.metrics if made else {},
        inputs=made.inputs if made else {},
    )
    outbox.close()
    with contextlib.suppress(OSError):
        journal.record(graph.root, run)
        write_text(graph.root / f"{step.log}.tsv", journal.benchmark(run))
