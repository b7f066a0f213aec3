"""Records measured in the base's tokens, and those that its chat template cannot use."""

import json

from made_sources import pairs, recipe
from small_models import CHATML, train_tokenizer

from meetara_build.stages.dataset import run
from meetara_build.training.chat import read_records


def test_a_record_that_the_template_cannot_write_is_dropped_by_file_and_line(write, tmp_path):
    base = tmp_path / "base"
    train_tokenizer(base)
    strict = "{% if messages | length > 2 %}{{ raise_exception('One question only.') }}{% endif %}"
    (base / "chat_template.jinja").write_text(strict + CHATML)
    records = [
        {
            "messages": [
                {"role": "user", "content": one["prompt"]},
                {"role": "assistant", "content": one["response"]},
            ]
        }
        for one in pairs(41)
    ]
    records[6]["messages"] += records.pop()["messages"]
    path, output = write(records), tmp_path / "output"
    output.mkdir()
    metrics = run(recipe([path.name]), {"base": base, "source_0": path}, output)
    assert (metrics["kept"], metrics["dropped"]) == (39, 1)
    account = list(read_records(output / "account.jsonl"))
    (dropped,) = (line for line in account if "reason" in line)
    assert dropped["source"] == f"{path.name}:7"
    assert dropped["reason"] == (
        "the base's chat template cannot write it (One question only.): change its turns, or mend the template"
    )
    assert json.loads((output / "card.json").read_text())["dropped_by_reason"] == {
        dropped["reason"]: 1
    }
