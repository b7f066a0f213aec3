#!/usr/bin/env python3
"""How fast the trainer learns, against the padded recipe and against TRL's SFTTrainer, on this
machine's CPU.

    python bench/trainer.py DATA.jsonl [--quick] [--trl-python /path/to/python]

DATA.jsonl has ``question`` and ``answer``. Everybody adapts the same base (the shape of
SmolLM2-135M, random weights, a tokenizer trained on the data) with the same LoRA (r 8, all linear
layers, same first weights), the same constant learning rate, the same records and one thread, in
float32 unless said otherwise. Each run is a process of its own that

1. makes the held-out pass on a model kept for that (always by the same code: a fixed piece of
   work),
2. trains another copy for a fixed number of CPU-seconds, the trainer's own set-up after tokenizing
   included,
3. makes the held-out pass again with the trained adapter, which gives the loss.

Runs are interleaved and repeated, each repeat in another order of the records; figures are medians.
CPU-seconds on shared machines vary by half, so speeds are also given for a machine on which the
held-out pass takes its median time: speed x own held-out time / median held-out time. Completion
tokens are answer tokens that the loss counted; prompt and padding tokens do not count.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

TRL = ["torch==2.13.0", "trl==1.16.0", "transformers==5.23.0", "peft==0.21.2"]
SHAPE = {
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
LORA = {
    "rank": 8,
    "alpha": 16,
    "dropout": 0.0,
    "targets": "all-linear",
    "rslora": False,
    "dora": False,
}
CONTENDERS = {
    "meetara": "this trainer, {batch_tokens} tokens a step",
    "padded recipe": "every record padded to 512, batch 2, logits of every position",
    "trl padded": "SFTTrainer, batch 4, padded to the longest",
    "trl grouped": "SFTTrainer, batch 4, grouped by length",
    "trl packed": "SFTTrainer, packed to 512, batch 1",
    "trl single": "SFTTrainer, batch 1: nothing to pad",
    "meetara bfloat16": "this trainer, frozen base in bfloat16; for orientation",
}
TRL_BATCH = {"trl padded": 4, "trl grouped": 4, "trl packed": 1, "trl single": 1}
HELD_OUT = 12
"""Records of the held-out pass."""
TRAINED_ON = 80
"""Records to train on, more than once if need be. Grouping by length sorts stretches of up to 50
batches, the longest records first: among thousands of records it would be seen in these few steps
with nothing but long ones, which have the largest share of completion tokens. Among 80 a stretch is
5 batches."""
EPOCHS = 5
SPEED_TARGETS = {"padded recipe": 2.2, "best of TRL": 1.1}


def main() -> None:
    options = parse()
    if options.worker:
        print(json.dumps(work(options)))
        return
    with tempfile.TemporaryDirectory(prefix="bench-trainer-") as folder:
        base = Path(folder) / "base"
        shape = make_base(options.data, base)
        names = [name for name in CONTENDERS if not options.only or name in options.only]
        trl = (
            find_trl(options.trl_python) if any(name.startswith("trl") for name in names) else None
        )
        describe(options, shape)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for repeat in range(options.repeats):
            for name in names:
                python = str(trl) if name.startswith("trl") else sys.executable
                runs[name].append(call(python, name, base, repeat, options))
                show_run(repeat, name, runs[name][-1])
    report(runs, options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Benchmark the trainer; see the head of this file."
    )
    parser.add_argument("data", type=Path, help="JSON lines with question and answer")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one repeat of 25 CPU-seconds: a smoke test, not a figure",
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="CPU-seconds of training in each run"
    )
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="constant, for everybody")
    parser.add_argument(
        "--batch-tokens", type=int, default=160, help="tokens in a step of this trainer"
    )
    parser.add_argument(
        "--trl-python",
        type=Path,
        default=Path(tempfile.gettempdir()) / "trl-venv" / "bin" / "python",
        help="a Python that has TRL; its virtual environment is made if it is missing",
    )
    parser.add_argument("--only", nargs="*", choices=CONTENDERS, help="run only these")
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--base", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.seconds = 1, 25.0
    return options


# --- what everybody shares


def read(data: Path) -> list[list[dict[str, str]]]:
    """Each record as a question and an answer in chat form."""
    records = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    return [
        [
            {"role": "user", "content": record["question"]},
            {"role": "assistant", "content": record["answer"]},
        ]
        for record in records
    ]


def make_base(data: Path, folder: Path) -> dict[str, Any]:
    """A random Llama of SmolLM2-135M's shape and a byte-level BPE tokenizer with ChatML, trained on
    the data."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from meetara_build.stages.base.embedded import make_tokenizer
    from meetara_build.training.chat import encode

    conversations = read(data)
    texts = (message["content"] for conversation in conversations for message in conversation)
    sizes = (SHAPE[key] for key in ("vocab_size", "max_position_embeddings"))
    tokenizer = make_tokenizer(texts, *sizes)
    torch.manual_seed(0)
    ends = {
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, **ends))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    encoded = [encode(tokenizer, conversation) for conversation in conversations]
    return {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "vocabulary": len(tokenizer),
        "records": len(encoded),
        "median tokens": statistics.median(len(record.ids) for record in encoded),
        "longest": max(len(record.ids) for record in encoded),
        "completion share": sum(record.completion_tokens for record in encoded)
        / sum(len(r.ids) for r in encoded),
    }


def work(options: argparse.Namespace) -> dict[str, Any]:
    """One run, in a process of its own."""
    import torch

    from meetara_build.training.chat import encode
    from meetara_build.training.kernels.lora import attach
    from meetara_build.training.loop import evaluate
    from meetara_build.training.model import load_model, load_tokenizer

    torch.set_num_threads(options.threads)
    tokenizer = load_tokenizer(options.base)
    conversations = read(options.data)[: HELD_OUT + TRAINED_ON]
    conversations = [
        several for several in conversations if len(encode(tokenizer, several).ids) <= 512
    ]
    held_out = [encode(tokenizer, conversation) for conversation in conversations[:HELD_OUT]]
    judge = attach(load_model(options.base, torch.float32), LORA, seed=0)

    def judged() -> tuple[float, float]:
        start = time.process_time()
        loss, _ = evaluate(judge, held_out)
        return loss, time.process_time() - start

    before, first = judged()
    dtype = torch.bfloat16 if options.worker == "meetara bfloat16" else torch.float32
    trainee, training = (
        attach(load_model(options.base, dtype), LORA, seed=0),
        conversations[HELD_OUT:],
    )
    contend = (
        trl
        if options.worker.startswith("trl")
        else padded
        if options.worker == "padded recipe"
        else meetara
    )
    tokens, steps, seconds = contend(trainee, tokenizer, training, options)
    learned = {name: value for name, value in trainee.state_dict().items() if "lora_" in name}
    judge.load_state_dict(learned, strict=False)
    after, second = judged()
    return {
        "tokens": tokens,
        "steps": steps,
        "seconds": seconds,
        "before": before,
        "after": after,
        "held_out_seconds": (first + second) / 2,
    }


# --- the contenders: each trains until its CPU-seconds are spent and says (completion tokens,
# steps, CPU-seconds)

Result = tuple[int, int, float]


def meetara(model: Any, tokenizer: Any, conversations: Any, options: argparse.Namespace) -> Result:
    from meetara_build.training.chat import encode
    from meetara_build.training.loop import Action, Progress, Settings, train

    examples = [encode(tokenizer, conversation) for conversation in conversations]
    settings = Settings(
        epochs=EPOCHS,
        batch_tokens=options.batch_tokens,
        learning_rate=options.learning_rate,
        schedule="constant",
        warmup_share=0.0,
        seed=options.seed,
    )
    start = time.process_time()
    spent = [0.0]

    def watch(progress: Progress) -> Action | None:
        spent[0] = time.process_time() - start
        return Action.STOP if spent[0] >= options.seconds else None

    history = train(model, examples, [], settings, observe=watch)
    return history.completion_tokens, len(history.curve), spent[0]


def padded(model: Any, tokenizer: Any, conversations: Any, options: argparse.Namespace) -> Result:
    """The recipe of most tutorials: tensors of [2, 512], whatever the records' lengths."""
    import torch

    from meetara_build.training.chat import encode

    examples = [encode(tokenizer, conversation) for conversation in conversations]
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=options.learning_rate, weight_decay=0.0)
    model.train()
    tokens = steps = 0
    start = time.process_time()
    for ids, mask, labels in padded_batches(examples, tokenizer.pad_token_id, options.seed):
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tokens += int((labels[:, 1:] != -100).sum())
        steps += 1
        if time.process_time() - start >= options.seconds:
            break
    return tokens, steps, time.process_time() - start


def padded_batches(
    examples: Any, pad: int, seed: int, batch: int = 2, width: int = 512
) -> Iterator[tuple[Any, Any, Any]]:
    import random

    import torch

    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)
    for place in range(0, len(order) - batch + 1, batch):
        rows = [examples[index] for index in order[place : place + batch]]
        ids = torch.tensor([row.ids + [pad] * (width - len(row.ids)) for row in rows])
        mask = torch.tensor([[1] * len(row.ids) + [0] * (width - len(row.ids)) for row in rows])
        said = torch.tensor([row.mask + [False] * (width - len(row.ids)) for row in rows])
        yield ids, mask, ids.masked_fill(~said, -100)


def trl(model: Any, tokenizer: Any, conversations: Any, options: argparse.Namespace) -> Result:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    start = time.process_time()
    spent = [0.0]
    tokens = [0]

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            spent[0] = time.process_time() - start
            control.should_training_stop = spent[0] >= options.seconds

    class Counting(SFTTrainer):
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **others: Any) -> Any:
            tokens[0] += int((inputs["labels"][:, 1:] != -100).sum())
            return super().compute_loss(model, inputs, *args, **others)

    grouped = (
        {"train_sampling_strategy": "group_by_length"} if options.worker == "trl grouped" else {}
    )
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            max_length=512,
            packing=options.worker == "trl packed",
            completion_only_loss=True,
            per_device_train_batch_size=TRL_BATCH[options.worker],
            num_train_epochs=EPOCHS,
            gradient_checkpointing=False,
            seed=options.seed,
            bf16=False,
            fp16=False,
            use_cpu=True,
            learning_rate=options.learning_rate,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=1.0,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **grouped,
        )
        data = Dataset.from_list(
            [{"prompt": [asked], "completion": [said]} for asked, said in conversations]
        )
        trainer = Counting(
            model=model,
            args=config,
            train_dataset=data,
            processing_class=tokenizer,
            callbacks=[Watch()],
        )
        start = time.process_time()
        trainer.train()
    return tokens[0], trainer.state.global_step, spent[0]


# --- running and reporting


def call(
    python: str, name: str, base: Path, seed: int, options: argparse.Namespace
) -> dict[str, Any]:
    arguments = ["--worker", name, "--base", str(base), "--seconds", str(options.seconds)]
    arguments += ["--threads", str(options.threads), "--learning-rate", str(options.learning_rate)]
    arguments += ["--batch-tokens", str(options.batch_tokens), "--seed", str(seed)]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(options.threads),
        "TOKENIZERS_PARALLELISM": "false",
    }
    command = [python, __file__, str(options.data), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def find_trl(python: Path) -> Path:
    """The Python that has TRL; makes its environment where there is none."""
    if not python.exists():
        print(f"making {python.parent.parent} with {' '.join(TRL)} (minutes)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", python.parent.parent], check=True)
        for packages in (
            TRL[:1],
            TRL[1:],
        ):  # torch first, alone: else pip takes the build with CUDA
            subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
    return python


def describe(options: argparse.Namespace, shape: dict[str, Any]) -> None:
    import peft
    import torch
    import transformers

    model = next(
        (
            line.split(":")[1].strip()
            for line in lines("/proc/cpuinfo")
            if line.startswith("model name")
        ),
        "?",
    )
    memory = next(
        (
            int(line.split()[1]) // 2**20
            for line in lines("/proc/meminfo")
            if line.startswith("MemTotal")
        ),
        0,
    )
    features = (
        "avx512_bf16"
        if any("avx512_bf16" in line for line in lines("/proc/cpuinfo"))
        else "no avx512_bf16"
    )
    print(
        f"machine   {model} ({features}), {os.cpu_count()} cores, {memory} GB, {platform.platform()}"
    )
    print(f"load      {os.getloadavg()[0]:.1f} jobs waiting or running in the last minute")
    print(
        f"software  Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"peft {peft.__version__}, {TRL[1]}"
    )
    print(
        f"base      {shape['parameters'] / 1e6:.1f} M parameters, vocabulary {SHAPE['vocab_size']} ({shape['vocabulary']} used)"
    )
    print(
        f"data      {options.data.name}: {shape['records']} records, median {shape['median tokens']:.0f} tokens, longest "
        f"{shape['longest']}, {shape['completion share']:.0%} completion; {HELD_OUT} held out"
    )
    print(
        f"runs      {options.repeats} x {options.seconds:.0f} CPU-seconds each, {options.threads} thread(s), "
        f"learning rate {options.learning_rate:g}\n",
        flush=True,
    )


def lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def show_run(repeat: int, name: str, run: dict[str, Any]) -> None:
    print(
        f"repeat {repeat + 1}  {name:17} {run['tokens'] / run['seconds']:6.1f} completion tokens per CPU-second, "
        f"{run['steps']:3d} steps in {run['seconds']:5.1f} s, held-out loss {run['before']:.3f} -> {run['after']:.3f}, "
        f"held-out pass {run['held_out_seconds']:.1f} s",
        flush=True,
    )


def keep(
    raw: dict[str, float], loss: dict[str, float], rivals: list[str], options: argparse.Namespace
) -> None:
    """Keep the medians that docs/figures.md names."""
    from bench.result_files import keep_result

    fastest = max(rivals, key=lambda name: raw[name])
    lowest = min(rivals, key=lambda name: loss[name])
    pace = {"meetara": raw["meetara"], "padded recipe": raw["padded recipe"]}
    pace["best of TRL"] = raw[fastest]
    result = {
        "repeats": options.repeats,
        "seconds": options.seconds,
        "trl": TRL[1].partition("==")[2],
        "tokens_per_cpu_second": pace,
        "best_of_trl": CONTENDERS[fastest],
        "ratios": {name: raw["meetara"] / pace[name] for name in ("padded recipe", "best of TRL")},
        "losses": {"meetara": loss["meetara"], "best of TRL": loss[lowest]},
        "lowest_of_trl": CONTENDERS[lowest],
        "loss_ratio": loss["meetara"] / loss[lowest],
    }
    keep_result("trainer", result)


def report(runs: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> None:
    """The table of medians, and the two figures that matter against their targets."""
    pace = statistics.median(
        run["held_out_seconds"] for several in runs.values() for run in several
    )

    def median(name: str, value: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(value(run) for run in runs[name])

    raw = {name: median(name, lambda run: run["tokens"] / run["seconds"]) for name in runs}
    even = {
        name: median(
            name, lambda run: run["tokens"] / run["seconds"] * run["held_out_seconds"] / pace
        )
        for name in runs
    }
    loss = {name: median(name, lambda run: run["after"]) for name in runs}
    print(
        f"\n{'medians':17} {'tokens/CPU-s':>12} {'evened out':>11} {'steps':>6} {'held-out loss':>14}"
    )
    for name in runs:
        steps = median(name, lambda run: run["steps"])
        what = CONTENDERS[name].format(batch_tokens=options.batch_tokens)
        print(
            f"{name:17} {raw[name]:12.1f} {even[name]:11.1f} {steps:6.0f} {loss[name]:14.3f}   {what}"
        )
    rivals = [name for name in runs if name.startswith("trl")]
    if "meetara" not in runs:
        return
    if set(runs) == set(CONTENDERS) and not options.quick:
        keep(raw, loss, rivals, options)
    print()
    compared = {
        "padded recipe": ["padded recipe"] if "padded recipe" in runs else [],
        "best of TRL": rivals,
    }
    for what, names in compared.items():
        if names:
            ratios = [
                min(speed["meetara"] / speed[name] for name in names) for speed in (raw, even)
            ]
            good = "reached" if min(ratios) >= SPEED_TARGETS[what] else "MISSED"
            print(
                f"speed against {what}: {ratios[0]:.2f} (evened out {ratios[1]:.2f}); "
                f"target {SPEED_TARGETS[what]}: {good}"
            )
    if rivals:
        best = min(rivals, key=lambda name: loss[name])
        good = "reached" if loss["meetara"] <= loss[best] else "MISSED"
        print(
            f"held-out loss {loss['meetara']:.3f}, best of TRL {loss[best]:.3f} ({best}); target no worse: {good}"
        )


if __name__ == "__main__":
    main()
