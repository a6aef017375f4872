"""The board: the demo model's tasks under every preset, cache, rule and dtype; accuracy against passes and CPU time.

    python -m benchmarks.board                              # about ten minutes of one core's time
    python -m benchmarks.board --length 512 --limit 5 --stories 30
    python -m benchmarks.board --smoke                      # seconds; writes nothing

All settings answer the same questions, in batches and with the same early stop. Right and wrong answers are compared
with those of one token a step question by question, which leaves much less to chance than two accuracies do. Results
are kept by length, and `--only` measures some settings again; `python -m benchmarks.report` writes docs/board.md.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks import machine
from benchmarks.questions import Question, card_tasks
from llada_core import DEMO_FOLDER, GenerationParams, generate, load_model, load_tokenizer
from llada_core.model.interface import MaskPredictor
from llada_core.sampling.params import PRESETS
from llada_core.text.tokenizer import Tokenizer

EXACT = "exact, float32"
SMOKE = [EXACT, "fast, float32", "fast, int8"]

# The precisions, as arguments of `load_model`.
PRECISIONS: Mapping[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"dtype": "bfloat16"},
    "int8": {"quantization": "int8"},
}
_BOUND: dict[str, Any] = {"entropy_bound": 0.1}
_DELAYED: dict[str, Any] = {**_BOUND, "cache": "delayed"}
# Settings in float32. A share in place of a number of steps is one of the length.
METHODS: Mapping[str, dict[str, Any]] = {
    "two tokens a step": {"steps": 0.5},
    "confidence ≥ 0.95": {"confidence_threshold": 0.95},
    "confidence ≥ 0.9": {"confidence_threshold": 0.9},
    "factor 0.5": {"confidence_factor": 0.5},
    "entropy ≤ 0.1": {"entropy_threshold": 0.1},
    "entropy bound 0.05": {"entropy_bound": 0.05},
    "entropy bound 0.1": _BOUND,
    "bound 0.1, prefix cache": {**_BOUND, "cache": "prefix"},
    "bound 0.1, dual cache": {**_BOUND, "cache": "dual"},
    "bound 0.1, dual cache, window 64": {**_BOUND, "cache": "dual", "suffix_window": 64},
    "bound 0.1, dual cache, refreshed every 4": {**_BOUND, "cache": "dual", "cache_refresh_interval": 4},
    "bound 0.1, delayed cache": _DELAYED,
    "bound 0.1, delayed cache, refreshed every 8": {**_DELAYED, "cache_refresh_interval": 8},
    "bound 0.1, window 32": {**_BOUND, "suffix_window": 32},
    "bound 0.1, delayed cache, window 16": {**_DELAYED, "suffix_window": 16},
    "bound 0.1, delayed cache, window 32": {**_DELAYED, "suffix_window": 32},
    "bound 0.1, delayed cache, window 48": {**_DELAYED, "suffix_window": 48},
    "bound 0.1, delayed cache, window 64": {**_DELAYED, "suffix_window": 64},
    "bound 0.1, delayed cache, window 32, 2 blocks": {**_DELAYED, "suffix_window": 32, "active_blocks": 2},
    "entropy ≤ 0.1, window 32": {"entropy_threshold": 0.1, "suffix_window": 32},
    "entropy ≤ 0.1, delayed cache": {"entropy_threshold": 0.1, "cache": "delayed"},
    "entropy ≤ 0.1, delayed cache, window 32": {"entropy_threshold": 0.1, "cache": "delayed", "suffix_window": 32},
    "entropy ≤ 0.2, delayed cache, window 32": {"entropy_threshold": 0.2, "cache": "delayed", "suffix_window": 32},
    "entropy ≤ 0.2, delayed cache, window 48": {"entropy_threshold": 0.2, "cache": "delayed", "suffix_window": 48},
    "entropy ≤ 0.1, delayed cache, window 32, 2 blocks": {
        "entropy_threshold": 0.1,
        "cache": "delayed",
        "suffix_window": 32,
        "active_blocks": 2,
    },
}


def presets() -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the presets in every precision: name → precision and parameters; one token a step in float32 is first."""
    return {
        f"{preset}, {precision}": (precision, dict(bundle))
        for precision in PRECISIONS
        for preset, bundle in PRESETS.items()
    }


def settings() -> dict[str, tuple[str, dict[str, Any]]]:
    """Return all settings: name → precision and parameters."""
    return presets() | {name: ("float32", params) for name, params in METHODS.items()}


def main(
    limit: Annotated[int, typer.Option(help="Questions of each task.", min=1)] = 20,
    stories: Annotated[int, typer.Option(help="Stories to tell.", min=1)] = 100,
    length: Annotated[int, typer.Option(help="Positions of the answer, as far as the model has them.", min=1)] = 128,
    model: Annotated[Path, typer.Option(help="Checkpoint folder.")] = DEMO_FOLDER,
    output_dir: Annotated[Path, typer.Option(help="Folder of board.json.")] = machine.RESULTS,
    only: Annotated[list[str], typer.Option(help="Measure this setting, keep the others; repeatable.")] = [],  # noqa: B006
    smoke: Annotated[
        bool, typer.Option("--smoke", help="One question of each task, presets only; write nothing.")
    ] = False,
) -> None:
    """Print accuracy, forward passes and CPU seconds of each setting, and write them as JSON."""
    torch.set_num_threads(1)
    chosen = settings()
    if smoke:
        limit, stories, length = 1, 1, 16
        chosen = {name: chosen[name] for name in SMOKE}
    tokenizer = load_tokenizer(model)
    assert tokenizer is not None
    models = {name: load_model(model, **options) for name, options in PRECISIONS.items()}
    tasks = card_tasks(limit, stories)
    file = output_dir / "board.json"
    result: dict[str, Any] = json.loads(file.read_text()) if file.exists() and not smoke else {"lengths": {}}
    kept = result["lengths"].get(str(length), {}).get("settings", {}) if only else {}
    found = {name: kept[name] for name in chosen if name in kept}
    for name, (precision, params) in chosen.items():
        if only and name not in only:
            continue
        found[name] = {"precision": precision, "params": params}
        found[name] |= measure(models[precision], tokenizer, tasks, params, length)
        if EXACT in found:
            typer.echo(line(name, found[name], found[EXACT]))
        if not smoke:
            ordered = {name: found[name] for name in chosen if name in found}
            result["lengths"][str(length)] = {"machine": machine.describe(), "settings": ordered}
            machine.write("board", result, output_dir)
    typer.echo(f"area under accuracy and parallelism: {area(found):.2f}")


def measure(
    model: MaskPredictor,
    tokenizer: Tokenizer,
    tasks: Mapping[str, Sequence[Question]],
    params: Mapping[str, Any],
    length: int,
) -> dict[str, Any]:
    """Ask everything under one setting: which answers are right, forward passes, tokens and CPU seconds by task."""
    found: dict[str, dict[str, Any]] = {"right": {}, "forward_passes": {}, "tokens": {}, "cpu_s": {}}
    for task, questions in tasks.items():
        prompts = [tokenizer.encode_chat(question.messages) for question in questions]
        room = [min(length, model.shape.max_sequence_length - len(prompt)) for prompt in prompts]
        started = time.thread_time()
        results = generate(model, prompts, [_params(params, size) for size in room], tokenizer=tokenizer)
        found["cpu_s"][task] = time.thread_time() - started
        found["forward_passes"][task] = sum(result.forward_passes for result in results)
        found["tokens"][task] = sum(len(result.token_ids) for result in results)
        pairs = zip(questions, results, strict=True)
        found["right"][task] = [int(question.is_answered_by(result.text or "")) for question, result in pairs]
    return found


def _params(setting: Mapping[str, Any], length: int) -> GenerationParams:
    steps = {"steps": int(setting["steps"] * length)} if "steps" in setting else {}
    return GenerationParams(gen_length=length, **{**setting, **steps})


def accuracy(found: Mapping[str, Any]) -> float:
    """The mean accuracy over the tasks."""
    shares = [sum(right) / len(right) for right in found["right"].values()]
    return sum(shares) / len(shares)


def difference(right: Sequence[int], baseline: Sequence[int]) -> tuple[float, float]:
    """The accuracy minus that of a baseline on the same questions, and its standard error."""
    differences = [mine - other for mine, other in zip(right, baseline, strict=True)]
    mean = sum(differences) / len(differences)
    variance = sum((each - mean) ** 2 for each in differences) / max(1, len(differences) - 1)
    return mean, math.sqrt(variance / len(differences))


def speedup(found: Mapping[str, Any], exact: Mapping[str, Any], kind: str) -> float:
    """How many times less of `kind` (`cpu_s`, `forward_passes`) than one token a step takes, over all tasks."""
    ratio: float = sum(exact[kind].values()) / sum(found[kind].values())
    return ratio


def front(found: Mapping[str, Mapping[str, Any]], kind: str = "cpu_s") -> list[str]:
    """The settings that none is both faster and at least as accurate as, slowest first."""
    ordered = sorted(found, key=lambda name: (sum(found[name][kind].values()), -accuracy(found[name])))
    best, names = -1.0, []
    for name in ordered:
        if accuracy(found[name]) > best:
            best = accuracy(found[name])
            names.append(name)
    return names[::-1]


def area(found: Mapping[str, Mapping[str, Any]]) -> float:
    """The area under accuracy as a function of parallelism along the front of forward passes in float32.

    Parallelism is the number of times fewer forward passes than one token a step. As in d3LLM's area (AUP), a point
    more than five points of accuracy below exact counts for nothing, and what is lost weighs exponentially:
    accuracy · exp(-3 (1 - accuracy / best)). One token a step alone has area 0; one that is k times as parallel at the
    same accuracy a adds (k - 1) a.
    """
    exact = found.get(EXACT)
    if exact is None:
        return 0.0
    same = {name: one for name, one in found.items() if one["precision"] == "float32"}
    points = [
        (speedup(same[name], exact, "forward_passes"), accuracy(same[name])) for name in front(same, "forward_passes")
    ]
    points = sorted({(1.0, accuracy(exact)), *((x, y) for x, y in points if x > 1 and y >= accuracy(exact) - 0.05)})
    best = max(y for _, y in points)
    weighted = [(x, y * math.exp(-3 * (1 - y / best))) for x, y in points]
    return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(weighted))


def line(name: str, found: Mapping[str, Any], exact: Mapping[str, Any]) -> str:
    """One line of the printed board."""
    accuracies = " ".join(f"{sum(right) / len(right):>6.1%}" for right in found["right"].values())
    return (
        f"{name:<50} {accuracies}  mean {accuracy(found):.1%}  passes ÷{speedup(found, exact, 'forward_passes'):.1f}"
        f"  CPU {sum(found['cpu_s'].values()):.1f} s, ÷{speedup(found, exact, 'cpu_s'):.1f}"
    )


if __name__ == "__main__":
    typer.run(main)
