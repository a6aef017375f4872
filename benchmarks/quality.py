"""Quality against speed: the demo model's held-out questions under every rule, cache and preset.

    python -m benchmarks.quality                    # a quarter of an hour
    python -m benchmarks.quality --limit 50

All settings use the same canvas and early stop. A story is right if the grammar that taught the model can tell it.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks import machine
from llada_core import DEMO_FOLDER, GenerationParams, GenerationResult, generate, load_model, load_tokenizer
from llada_core.model.interface import MaskPredictor
from llada_core.text.tokenizer import Message, Tokenizer
from training.demo.sampling import stream
from training.demo.splits import make_splits
from training.demo.stories import heroes, recognize, with_articles

GEN_LENGTH, STORY_LENGTH, NUM_STORIES = 64, 128, 100

TASKS = ("capitals", "sums", "differences", "definitions", "unknown words and places")

SETTINGS: Mapping[str, dict[str, Any]] = {
    "one token a step": {},
    "two tokens a step": {"steps": 0.5},
    "four tokens a step": {"steps": 0.25},
    **{f"confidence ≥ {value}": {"confidence_threshold": value} for value in (0.95, 0.9, 0.8, 0.7, 0.5)},
    **{f"factor {value}": {"confidence_factor": value} for value in (0.5, 1.0)},
    **{f"entropy bound {value}": {"entropy_bound": value} for value in (0.05, 0.1, 0.3)},
    "prefix cache": {"cache": "prefix"},
    "dual cache": {"cache": "dual"},
    "confidence ≥ 0.9, prefix cache": {"confidence_threshold": 0.9, "cache": "prefix"},
    "confidence ≥ 0.9, dual cache": {"confidence_threshold": 0.9, "cache": "dual"},
    "confidence ≥ 0.9, dual cache, refreshed every 4": {
        "confidence_threshold": 0.9,
        "cache": "dual",
        "cache_refresh_interval": 4,
    },
    "confidence ≥ 0.8, dual cache": {"confidence_threshold": 0.8, "cache": "dual"},
    "entropy bound 0.05, dual cache": {"entropy_bound": 0.05, "cache": "dual"},
    "entropy bound 0.05, dual cache, refreshed every 4": {
        "entropy_bound": 0.05,
        "cache": "dual",
        "cache_refresh_interval": 4,
    },
    "entropy bound 0.1, dual cache": {"entropy_bound": 0.1, "cache": "dual"},
}


def main(
    limit: Annotated[int, typer.Option(help="Questions of each task.", min=1)] = 300,
    model: Annotated[Path, typer.Option(help="Checkpoint folder.")] = DEMO_FOLDER,
    output_dir: Annotated[Path, typer.Option(help="Where quality.json goes.")] = machine.RESULTS,
    only: Annotated[list[str], typer.Option(help="Measure this setting, keep the others; repeatable.")] = [],  # noqa: B006
) -> None:
    """Print accuracy, forward passes and tokens a step for each setting, and write them as JSON."""
    torch.set_num_threads(1)
    predictor, tokenizer = load_model(model), load_tokenizer(model)
    assert tokenizer is not None
    tasks = questions(limit)
    result: dict[str, Any] = {"machine": machine.describe(), "gen_length": GEN_LENGTH, "settings": {}}
    if only:
        result = json.loads((output_dir / "quality.json").read_text())
    typer.echo(
        f"{'':<50}" + "".join(f"  {task:>12}" for task in tasks) + f"{'forwards':>10}{'tokens/step':>13}{'CPU s':>8}"
    )
    for name, setting in SETTINGS.items():
        if only and name not in only:
            continue
        found = measure(predictor, tokenizer, tasks, setting)
        result["settings"][name] = {"params": setting, **found}
        machine.write("quality", result, output_dir)
        accuracies = "".join(f"  {found['accuracy'][task]:>{max(12, len(task))}.1%}" for task in tasks)
        typer.echo(
            f"{name:<50}{accuracies}{found['forward_passes']:>10}{found['tokens_per_step']:>13.2f}{found['cpu_s']:>8.0f}"
        )


def questions(limit: int) -> dict[str, list[tuple[str, str]]]:
    """Pairs of a question and the text that its answer must contain, by task; for a story, that text is the hero."""
    tasks: dict[str, list[tuple[str, str]]] = {task: [] for task in TASKS}
    for question in make_splits(0).questions:
        if question.task in tasks:
            tasks[question.task].append((question.turns[-1], question.answer))
    rng = stream(0, "evaluation/stories")
    asked = [rng.choice(heroes()) for _ in range(NUM_STORIES)]
    tasks["stories"] = [(with_articles(f"Tell me a story about a {hero}."), hero) for hero in asked]
    # Every n-th question: the list is sorted, its head would be one phrasing.
    return {task: pairs[:: max(1, len(pairs) // limit)] for task, pairs in tasks.items()}


def measure(
    model: MaskPredictor, tokenizer: Tokenizer, tasks: Mapping[str, list[tuple[str, str]]], setting: Mapping[str, Any]
) -> dict[str, Any]:
    """Ask everything under one setting."""
    started = time.thread_time()
    accuracy: dict[str, float] = {}
    everything: list[GenerationResult] = []
    for task, pairs in tasks.items():
        length = STORY_LENGTH if task == "stories" else GEN_LENGTH
        prompts = [[Message("user", question)] for question, _ in pairs]
        results = generate(model, prompts, _params(setting, length), tokenizer=tokenizer)
        accuracy[task] = sum(
            _is_right(task, answer, result.text or "") for (_, answer), result in zip(pairs, results, strict=True)
        ) / len(pairs)
        everything += results
    steps = sum(result.denoising_steps for result in everything)
    return {
        "accuracy": accuracy,
        "forward_passes": sum(result.forward_passes for result in everything),
        "tokens_per_step": sum(len(result.token_ids) for result in everything) / steps,
        "cpu_s": time.thread_time() - started,
    }


def _params(setting: Mapping[str, Any], length: int) -> GenerationParams:
    own = dict(setting)
    if "steps" in own:  # a share of the length
        own["steps"] = int(own["steps"] * length)
    return GenerationParams(gen_length=length, **own)


def _is_right(task: str, answer: str, text: str) -> bool:
    if task != "stories":
        return answer in text
    story = recognize(text)
    return story is not None and story.hero == answer


if __name__ == "__main__":
    typer.run(main)
