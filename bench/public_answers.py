"""Two public data sets with hundreds of held-out prompts on the default base, their answers judged:
medical questions (MedQuAD) as a strict domain, and sums (GSM8K), which are judged by their final number
too.

python -m bench.public_answers --folder FOLDER --data FOLDER [--records 1200] [--prompts 200]
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from bench import machine
from bench.answers import FILES, read_judged, summarize_checks, summarize_choices
from bench.result_files import keep_result
from meetara_build.stages.asking import find_interval

BIN = Path(sys.executable).parent
SETS = {"medquad": "strict", "gsm8k": "standard"}
SAID = re.compile(r"####\s*(-?[\d,]*\.?\d+)")
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def add_set(project: Path, file: Path, records: int, prompts: int) -> None:
    """Make a data set a domain, of so many records, whose models are asked so many prompts."""
    name = file.stem
    tool = str(BIN / "meetara-build")
    subprocess.run([tool, "add-domain", name, "--from", file.resolve()], cwd=project, check=True)
    path = project / "conf" / "domain" / f"{name}.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["safety"], content["sources"][0]["limit"] = SETS[name], records
    whole = {"domain": content, "answers": {"prompts": prompts, "tokens": 200}}
    text = yaml.safe_dump(whole, sort_keys=False, allow_unicode=True)
    path.write_text(f"# @package _global_\n{text}", encoding="utf-8")


def read_final_number(text: str) -> float | None:
    """What a sum comes to: the number after ####, or else the last one; None without any."""
    marked = SAID.findall(text)
    found = marked or NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def count_right(lines: Iterable[Mapping[str, Any]], file: str) -> dict[str, float]:
    """How many of a file's sums come to the right number, with the 95% interval."""
    right = [
        read_final_number(line["answers"][file]["text"]) == read_final_number(line["reference"])
        for line in lines
    ]
    low, high = find_interval(sum(right), len(right))
    return {"sums": len(right), "right": sum(right) / len(right), "low": low, "high": high}


def summarize(project: Path, name: str) -> dict[str, Any]:
    """What a data set's files are worth."""
    root = project / "artifacts"
    lines = read_judged(root, name)
    evaluation = json.loads((root / name / "evaluation" / "evaluation.json").read_bytes())
    manifest = json.loads((root / name / "package" / "manifest.json").read_bytes())
    found = {
        "records": json.loads((root / name / "dataset" / "card.json").read_bytes())["counts"],
        "prompts": len(lines),
        "losses": {"base": evaluation["base"]["loss"]}
        | {file: one["loss"] for file, one in evaluation["variants"].items()},
        "choices": {file: summarize_choices(lines, file) for file in FILES},
        "checks": {file: summarize_checks(lines, file) for file in FILES},
        "held_back": manifest["metrics"].get("held_back", {}).get("message", ""),
    }
    if name == "gsm8k":
        found["sums"] = {file: count_right(lines, file) for file in FILES}
    return found


def main() -> None:
    """Build, print and keep."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--folder", type=Path, required=True, help="a project; made where it is not")
    words.add_argument("--data", type=Path, required=True, help="where medquad.jsonl … are")
    words.add_argument("--records", type=int, default=1200)
    words.add_argument("--prompts", type=int, default=200)
    words.add_argument("--beside", default="nothing that was told", help="what else ran")
    given = words.parse_args()
    print(machine.describe(), flush=True)
    machine.adopt_orphans()
    project: Path = given.folder
    if not project.exists():
        subprocess.run([BIN / "meetara-build", "init", project], check=True, capture_output=True)
        for name in SETS:
            add_set(project, given.data / f"{name}.jsonl", given.records, given.prompts)
    command = [BIN / "meetara-build", "build", *SETS, "gguf.files=lora"]
    done = subprocess.run(command, cwd=project, check=False, capture_output=True, text=True)
    if done.returncode and "[build-held-back]" not in done.stderr:
        raise SystemExit(done.stderr[-2000:])
    result = {"beside": given.beside, **{name: summarize(project, name) for name in SETS}}
    print(json.dumps(result, indent=1))
    keep_result("public_answers", result)


if __name__ == "__main__":
    main()
