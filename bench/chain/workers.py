"""What the recipes of others do, a process for each step: ``python -m bench.chain.workers NAME
JOB``, JOB in JSON.

Libraries are imported in the functions, as their import is what a process takes to start.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.chain.processes import SAID, START

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor

    from meetara_build.training.chat import Encoded

Job = Mapping[str, Any]
Said = dict[str, Any]

WIDTH, BATCH = 512, 2
EPOCHS, RATE = 3, 2e-4
RANK, ALPHA = 16, 32
TRL_VARIANTS: dict[str, dict[str, Any]] = {
    "packed": {"packing": True, "per_device_train_batch_size": 1},
    "packed, high rate": {
        "packing": True,
        "per_device_train_batch_size": 1,
        "learning_rate": 1e-3,
    },
    "grouped, high rate": {
        "train_sampling_strategy": "group_by_length",
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
    },
    "single": {"per_device_train_batch_size": 1},
}
"""Settings of TRL's SFTTrainer; the rate is 2e-4 where none is named."""


def load_adapted(job: Job) -> "PeftModel":
    """The base in float32 with a fresh adapter, as PEFT's own documentation makes it."""
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(job["seed"])
    model = AutoModelForCausalLM.from_pretrained(job["base"], dtype=torch.float32)
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, lora)
    assert isinstance(adapted, PeftModel)
    return adapted


def read_encoded(job: Job, name: str) -> "list[Encoded]":
    """The records of a file of the data set as token ids, with their answers marked."""
    from meetara_build.training.chat import encode, read_records
    from meetara_build.training.model import load_tokenizer

    tokenizer = load_tokenizer(Path(job["base"]))
    records = read_records(Path(job["dataset"]) / f"{name}.jsonl")
    return [encode(tokenizer, record["messages"]) for record in records]


def train_padded(job: Job) -> Said:
    """The recipe of most tutorials: tensors of [2, 512] whatever the records' lengths, the output
    layer at every position, 2e-4 falling by a cosine."""
    import torch
    from transformers import get_cosine_schedule_with_warmup

    torch.set_num_threads(job["threads"])
    model = load_adapted(job)
    examples = read_encoded(job, "train")
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=RATE)
    steps = EPOCHS * -(-len(examples) // BATCH)
    schedule = get_cosine_schedule_with_warmup(optimizer, 0, steps)
    model.train()
    for ids, mask, labels in make_padded_batches(examples, job["seed"]):
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.save_pretrained(job["output"])
    return {"steps": steps}


def make_padded_batches(
    examples: "Sequence[Encoded]", seed: int
) -> "Iterator[tuple[Tensor, Tensor, Tensor]]":
    """Token ids, attention mask and labels, each [2, 512], of every epoch."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for _ in range(EPOCHS):
        order = torch.randperm(len(examples), generator=generator).tolist()
        for place in range(0, len(order), BATCH):
            rows = [examples[index] for index in order[place : place + BATCH]]
            ids = torch.tensor([row.ids + [0] * (WIDTH - len(row.ids)) for row in rows])
            mask = torch.tensor([[1] * len(row.ids) + [0] * (WIDTH - len(row.ids)) for row in rows])
            said = torch.tensor([row.mask + [False] * (WIDTH - len(row.ids)) for row in rows])
            yield ids, mask, ids.masked_fill(~said, -100)


def train_trl(job: Job) -> Said:
    """TRL's SFTTrainer on prompts and completions, in float32, without checkpointing."""
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from meetara_build.training.chat import read_records
    from meetara_build.training.model import load_tokenizer

    torch.set_num_threads(job["threads"])
    records = read_records(Path(job["dataset"]) / "train.jsonl")
    turns = [record["messages"] for record in records]
    settings = {
        "max_length": WIDTH,
        "completion_only_loss": True,
        "num_train_epochs": EPOCHS,
        "learning_rate": RATE,
        "lr_scheduler_type": "cosine",
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "seed": job["seed"],
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "output_dir": job["output"],
        **TRL_VARIANTS[job["variant"]],
    }
    trainer = SFTTrainer(
        model=load_adapted(job),
        args=SFTConfig(**settings),
        train_dataset=Dataset.from_list(
            [{"prompt": several[:-1], "completion": several[-1:]} for several in turns]
        ),
        processing_class=load_tokenizer(Path(job["base"])),
    )
    trainer.train()
    trainer.save_model(job["output"])
    return {"steps": trainer.state.global_step}


def merge(job: Job) -> Said:
    """Base and adapter as one Hugging Face folder, by PEFT."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(job["base"], dtype=torch.float32)
    merged = PeftModel.from_pretrained(model, job["adapter"]).merge_and_unload()
    merged.save_pretrained(job["output"])
    AutoTokenizer.from_pretrained(job["base"]).save_pretrained(job["output"])
    return {}


def measure_imatrix(job: Job) -> Said:
    """Summed squared inputs of the merged model's layers over the training text."""
    import gguf
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM

    from meetara_build.stages import imatrix

    torch.set_num_threads(job["threads"])
    model = AutoModelForCausalLM.from_pretrained(job["merged"], dtype=torch.float32)
    model.train(False)
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, model.config.num_hidden_layers)
    found = ((name, table.get_name(name)) for name, _ in model.named_modules())
    names = {name: f"{short}.weight" for name, short in found if short}
    texts = [one.ids for one in read_encoded(job, "train")]
    sums, tokens = imatrix.measure(model, texts, names, job["tokens"])
    np.savez(job["output"], **sums)
    return {"tokens": tokens, "tensors": len(sums)}


def quantize(job: Job) -> Said:
    """One type of one file, by llama.cpp's own function."""
    import numpy as np

    from meetara_build.stages.gguf.quantize import quantize as call_llama

    with np.load(job["imatrix"]) as kept:
        sums = {name: kept[name] for name in kept.files}
    call_llama(Path(job["source"]), Path(job["target"]), job["type"], sums, job["threads"])
    return {}


def judge(job: Job) -> Said:
    """Nats of each held-out record's answer and its tokens, through llama.cpp; ``lora`` is an
    adapter laid over the file, if one is given."""
    import numpy as np

    from meetara_build.llama_cpp.model import Model
    from meetara_build.stages.held_out import log_softmax

    texts = read_encoded(job, "test")
    nats = []
    lora = Path(job["lora"]) if job.get("lora") else None
    longest = max(len(text.ids) for text in texts)
    with (
        Model(Path(job["file"])) as model,
        model.session(longest, threads=job["threads"], lora=lora) as session,
    ):
        for text in texts:
            said = zip(text.ids[1:], text.mask[1:], strict=True)
            wanted = np.array([token for token, counts in said if counts])
            pieces = session.stream(text.ids, [*text.mask[1:], False])
            rows = list(chain.from_iterable(log_softmax(piece) for piece in pieces))
            nats.append(-sum(float(row[token]) for row, token in zip(rows, wanted, strict=True)))
    return {"nats": nats, "tokens": [text.completion_tokens for text in texts]}


MODEL = ("torch", "transformers.models.llama.modeling_llama", "meetara_build.training.model")
LLAMA = ("meetara_build.stages.gguf.quantize", "meetara_build.stages.held_out")
WORKERS: dict[str, tuple[Callable[[Job], Said], Sequence[str]]] = {
    "padded": (train_padded, (*MODEL, "peft")),
    "trl": (train_trl, (*MODEL, "peft", "datasets", "trl", "trl.trainer.sft_trainer")),
    "merge": (merge, (*MODEL, "peft")),
    "imatrix": (measure_imatrix, (*MODEL, "gguf", "meetara_build.stages.imatrix")),
    "quantize": (quantize, LLAMA[:1]),
    "judge": (judge, (*LLAMA[1:], "meetara_build.training.model")),
}
"""Each with the modules that it imports, which is what a process takes to start."""


def main() -> None:
    """Do one job and say what came of it in a line of its own."""
    name, words = sys.argv[1:]
    work, modules = WORKERS[name]
    for module in modules:
        import_module(module)
    start = time.process_time()
    said = work(json.loads(words))
    print(SAID + json.dumps({START: start, **said}), flush=True)


if __name__ == "__main__":
    main()
