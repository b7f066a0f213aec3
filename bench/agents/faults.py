"""Faults injected into a training: each has to be got over without hand work, with the same adapter
where the fault allows it.

python -m bench.agents.faults [--only NAME,…]

Each fault happens inside a real `meetara-build run nutrition --rounds 4` of a small project with
all its agents; what is injected goes through a module that Python loads at its start
(sitecustomize), so that nothing in the package knows of it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from bench import machine
from bench.result_files import keep_result

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from projects import copy_built, edit, override, small_project

INJECTION = '''
import importlib.machinery, os, signal, time
from pathlib import Path

FAULT, NOTE = os.environ.get("INJECTED"), os.environ.get("INJECTED_NOTE", "")
execute = importlib.machinery.SourceFileLoader.exec_module

def once(step):
    """Whether this is the step at which the fault happens, the one time that it does."""
    note = Path(NOTE)
    if step < 10 or note.exists():
        return False
    note.write_text(str(step))
    return True

def patched(loader, module):
    execute(loader, module)
    if FAULT and module.__name__ == "meetara_build.training.kernels.packed":
        import torch
        plain, steps = module.PackedModel.loss, [0]
        def loss(self, records, **more):
            if not torch.is_grad_enabled():
                return plain(self, records, **more)
            steps[0] += 1
            tokens = sum(len(record.ids) for record in records)
            if FAULT == "out of memory" and tokens > 700 and len(records) > 1:
                Path(NOTE).write_text(str(tokens))
                raise torch.OutOfMemoryError("CUDA out of memory (injected)")
            if FAULT in ("crash", "corrupt checkpoint") and once(steps[0]):
                for file in Path(os.environ["INJECTED_ROOT"]).rglob("training.checkpoint") if FAULT != "crash" else ():
                    file.write_bytes(file.read_bytes()[:-100] + b"x" * 100)
                os.kill(os.getpid(), signal.SIGSEGV)
            if FAULT == "hang" and once(steps[0]):
                time.sleep(10_000)
            total, *rest = plain(self, records, **more)
            return (total * float("nan") if FAULT == "not finite" and once(steps[0]) else total, *rest)
        module.PackedModel.loss = loss

importlib.machinery.SourceFileLoader.exec_module = patched
'''
LIAR = """
from meetara_build.agents import Proposal, hookimpl

@hookimpl
def propose(context):
    for key, value in (("training.learning_rate", 2.5e-4), ("lora.rank", 2), ("training.epochs", -4), ("seed", 3)):
        yield Proposal("nutrition", key, value, "trust me", ["all figures"], 0.5, 1.0)
"""
HANGING = """
from meetara_build.agents import hookimpl

@hookimpl
def propose(context):
    while True:
        pass
"""


class Outcome(NamedTuple):
    """How a run ended: exit status, seconds, the adapter's digest, its validation loss, and what it
    said last."""

    status: int
    seconds: float
    adapter: str
    loss: float
    said: str


def environment(scratch: Path, project: Path, fault: str) -> dict[str, str]:
    """The environment in which a fault happens."""
    code = scratch / "injection"
    code.mkdir(exist_ok=True)
    (code / "sitecustomize.py").write_text(INJECTION)
    temporary = project.parent / f"{project.name}-tmp"
    temporary.mkdir()
    above = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(code), *above]),
        "INJECTED": fault,
        "INJECTED_NOTE": str(project / "happened"),
        "INJECTED_ROOT": str(project / "artifacts"),
        "TMPDIR": str(temporary),
        "MEETARA_HANG_SECONDS": "8",
    }


def ran(project: Path, variables: dict[str, str], rounds: int) -> Outcome:
    """One run with agents."""
    words = ["run", "nutrition", "--rounds", str(rounds)] if rounds else ["build", "nutrition"]
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "meetara_build", *words],
        cwd=project,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - started
    folder = project / "artifacts" / "nutrition" / "adapter"
    if not (folder / "manifest.json").exists():
        return Outcome(
            done.returncode, seconds, "", float("nan"), (done.stdout + done.stderr)[-1500:]
        )
    manifest = json.loads((folder / "manifest.json").read_text())
    digest = manifest["files"]["adapter_model.safetensors"]["sha256"]
    loss = manifest["metrics"]["validation_loss_after"]
    return Outcome(done.returncode, seconds, digest, loss, (done.stdout + done.stderr)[-1500:])


LONG_BATCHES = {
    "training.epochs": 4,
    "training.batch_tokens": 1024,
    "training.learning_rate": 2e-3,
    "data.max_tokens": 900,
}
"""Steps of several records, so that a micro-batch can be halved."""
FAULTS = {
    "out of memory": "another micro-batch: equal but for rounding",
    "not finite": "another learning rate",
    "crash": "same",
    "hang": "same",
    "corrupt checkpoint": "same",
    "dead context server": "same",
    "lying agent": "same",
    "hanging agent": "same",
}


def main() -> None:
    """Print the report."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--only")
    given = words.parse_args()
    chosen = given.only.split(",") if given.only else list(FAULTS)
    print(machine.describe(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        template = small_project(scratch / "template", ["nutrition", "programming"])
        edit(template / "conf" / "build.yaml", "training.checkpoint_seconds", 1)
        override(template, "base/mini", LONG_BATCHES)
        edit(
            template / "conf" / "build.yaml",
            "agents.policy",
            {"default": "accept", "llm_advisor": "never"},
        )
        agents = scratch / "agents"
        shutil.move(template / "plugins", agents)
        clean = ran(template, environment(scratch, template, ""), 0)
        print(f"{'without a fault':22} loss {clean.loss:.4f} in {clean.seconds:.0f} s", flush=True)
        recovered, same = 0, 0
        for fault in chosen:
            outcome = injected(scratch, template, agents, fault)
            note = scratch / fault.replace(" ", "-") / "happened"
            happened = note.exists() or fault.endswith(("server", "agent"))
            said = line(fault, clean, outcome, happened)
            recovered += said.endswith(": recovered")
            same += outcome.adapter == clean.adapter
            print(said, flush=True)
    if chosen == list(FAULTS):
        counted = {"faults": len(chosen), "recovered": recovered, "same": same}
        keep_result("agents_faults", counted)


def injected(scratch: Path, template: Path, agents: Path, fault: str) -> Outcome:
    """A run in which a fault happens; its adapter is not in the store, the base is."""
    project = copy_built(template, scratch / fault.replace(" ", "-"))
    for left in ("nutrition", "store"):
        shutil.rmtree(project / "artifacts" / left)
    variables = environment(scratch, project, fault)
    (project / "plugins").mkdir(exist_ok=True)
    if fault in ("out of memory", "not finite"):
        for agent in ("training_conductor", "gpu_optimizer"):
            shutil.copy(agents / f"{agent}.py", project / "plugins")
    if fault == "dead context server":
        variables["MEETARA_CONTEXT"] = "http://127.0.0.1:9/mcp"
    if fault in ("lying agent", "hanging agent"):
        (project / "plugins" / "hostile.py").write_text(
            LIAR if fault.startswith("lying") else HANGING
        )
        edit(project / "conf" / "build.yaml", "agents.seconds", 5)
    return ran(project, variables, 4)


def line(fault: str, clean: Outcome, outcome: Outcome, happened: bool) -> str:
    """What became of a fault, against what may be expected."""
    same = outcome.adapter == clean.adapter
    found = (
        "same adapter"
        if same
        else f"loss {outcome.loss:.4f} ({outcome.loss / clean.loss - 1:+.2%})"
    )
    recovered = outcome.status == 0 and (same or FAULTS[fault] != "same")
    verdict = (
        "NEVER HAPPENED"
        if not happened
        else "recovered"
        if recovered
        else f"NOT RECOVERED: {outcome.said}"
    )
    return f"{fault:22} {found}, expected: {FAULTS[fault]}; {outcome.seconds:.0f} s: {verdict}"


if __name__ == "__main__":
    main()
