"""A trial's training is the adapter stage's, base and records loaded once."""

from pathlib import Path
from typing import Any

import pytest
import torch
from projects import override

from meetara_build.graph import Graph, Step, load
from meetara_build.stages import adapter
from meetara_build.stages.recipes.adapter import AdapterRecipe
from meetara_build.training.settings import Action, Progress
from meetara_build.tuning.space import apply_settings
from meetara_build.tuning.trainer import Trainer

OTHER = {
    "lora.rank": 4,
    "lora.alpha": 8,
    "lora.dropout": 0.1,
    "training.learning_rate": 5e-3,
    "training.batch_tokens": 1024,
}
STOPPER = """
from meetara_build.agents import Action, hookimpl

@hookimpl
def observe(progress):
    return Action.STOP if progress.step == 3 else None
"""


def given(graph: Graph, step: Step) -> dict[str, Path]:
    inputs = {name: graph.root / one.place.folder for name, one in step.inputs.items()}
    return inputs | {name: Path(path) for name, path in step.sources.items()}


@pytest.fixture
def ready(built_project: Path, tmp_path: Path) -> tuple[Step, dict[str, Path], Trainer]:
    graph = load(built_project)
    step = graph.step("adapter", "nutrition")
    inputs = given(graph, step)
    return step, inputs, Trainer(step.recipe, inputs, tmp_path)


def staged(recipe: dict[str, Any], inputs: dict[str, Path], folder: Path) -> float:
    """The validation loss that the adapter stage gives."""
    torch.set_num_threads(recipe["threads"])
    output = folder / "stage" / "out"
    output.mkdir(parents=True)
    return float(
        adapter.run(AdapterRecipe.model_validate(recipe), inputs, output)["validation_loss_after"]
    )


def test_the_same_recipe_gives_the_same_loss_in_a_trial_and_in_the_stage(
    ready: tuple[Step, dict[str, Path], Trainer], tmp_path: Path
) -> None:
    step, inputs, trainer = ready
    recipe = apply_settings(step.recipe, OTHER)
    assert trainer.train(recipe).validation_after == staged(recipe, inputs, tmp_path)


def test_what_was_tried_before_leaves_no_trace(
    ready: tuple[Step, dict[str, Path], Trainer], built_project: Path
) -> None:
    step, _, trainer = ready
    weights = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    first = trainer.train(step.recipe).validation_after
    trainer.train(apply_settings(step.recipe, OTHER))
    assert trainer.train(step.recipe).validation_after == first
    assert {
        name
        for name, weight in trainer.model.state_dict().items()
        if not weight.equal(weights[name])
    } == set()


def test_a_trial_that_was_stopped_in_the_middle_leaves_no_trace(
    ready: tuple[Step, dict[str, Path], Trainer],
) -> None:
    step, _, trainer = ready

    def stop(progress: Progress) -> Action | None:
        raise KeyError(progress.step)

    with pytest.raises(KeyError):
        trainer.train(step.recipe, stop)
    assert (
        trainer.train(step.recipe).validation_after == trainer.train(step.recipe).validation_after
    )
    assert not hasattr(trainer.model, "peft_config")


def test_agents_that_watch_the_domain_s_training_watch_trials_too(
    project: Path, tmp_path: Path
) -> None:
    (project / "plugins" / "stopper.py").write_text(STOPPER)
    override(project, "nutrition", {"training.observers": ["stopper"]})
    graph = load(project)
    step = graph.step("adapter", "nutrition")
    trainer = Trainer(step.recipe, given(graph, step), tmp_path)
    seen: list[int] = []
    trainer.train(step.recipe, lambda progress: seen.append(progress.step))
    trainer.close()
    assert seen == [1, 2, 3]
