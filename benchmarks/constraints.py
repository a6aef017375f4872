"""What constraints cost: compiling ten realistic patterns, and the CPU time that they add to a step.

    python -m benchmarks.constraints        # two minutes

The vocabularies are random but of real size, with all bytes. A step is measured without a model: random logits stand
for one that knows nothing, and three ways of adding to them for one that writes a matching answer, for one that would
write something else with confidence, and for one that would end the text at once. Only what the constraint adds is
timed: choosing what to commit, and committing it. At temperature 1 that is set against the draw of the proposals, and
at temperature 0 against the whole step of a model of 134 M parameters.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from benchmarks import machine
from benchmarks.inference import SIZES
from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.model.architectures.llada.names import tensor_name
from llada_core.model.backends.cpu import CPUMaskPredictor
from llada_core.model.network import Network
from llada_core.sampling.canvas import Canvas
from llada_core.sampling.constraints.compile import compile_constraint
from llada_core.sampling.constraints.constraint import Constraint
from llada_core.sampling.params import GenerationParams
from llada_core.sampling.prepare import Vocabulary, prepare_response
from llada_core.sampling.proposals import copy_to_host, unpack
from llada_core.sampling.propose import Coordinates, Recipe, draft
from llada_core.sampling.sampler import Sampler
from tests.vocabularies import vocabulary_of

VOCABULARY_SIZES = (4096, 126464)
GEN_LENGTH, BLOCK_LENGTH = 96, 32
# Steps at temperature 1, and steps of the model; each takes a fifth of a second.
NUM_DRAWS, NUM_MODEL_STEPS = 6, 24
MODEL_PATTERNS = ("date", "person", "order")

_CHARACTER = r'(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})'
_STRING = f'"{_CHARACTER}*"'
_NUMBER = r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?"
_SCALAR = rf"(?:{_STRING}|{_NUMBER}|true|false|null)"


def _value(depth: int) -> str:
    """A JSON value with at most `depth` levels of arrays and objects."""
    if depth == 0:
        return _SCALAR
    inner = _value(depth - 1)
    array, entry = rf"\[(?:{inner}(?:, ?{inner})*)?\]", rf"{_STRING}: ?{inner}"
    return rf"(?:{_SCALAR}|{array}|\{{(?:{entry}(?:, ?{entry})*)?\}})"


PATTERNS = {
    "choice of 3": "yes|no|maybe",
    "choice of 300": "|".join(f"item {number} of category {number * number % 97}" for number in range(300)),
    "date": r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])",
    "UUID": r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "e-mail": r"[a-z0-9._%+-]{1,32}@[a-z0-9-]{1,16}(?:\.[a-z]{2,8}){1,2}",
    "person": rf'\{{"name": "{_CHARACTER}{{1,20}}", "age": (?:0|[1-9]\d{{0,2}}), "city": "{_CHARACTER}{{0,20}}"\}}',
    "order": rf'\{{"id": "[A-Z]{{3}}-\d{{4}}", "items": \[(?:\{{"name": {_STRING}, "number": \d{{1,3}}, "size": '
    rf'"(?:small|medium|large)"\}},? ?){{1,4}}\], "paid": (?:true|false)\}}',
    "tool call": rf'\{{"name": "(?:add|search|send)", "arguments": \{{"query": {_STRING}, "limit": \d{{1,2}}\}}\}}',
    "string of 200": f'"{_CHARACTER}{{0,200}}"',
    "JSON object, 3 levels": rf"\{{(?:{_STRING}: ?{_value(2)}(?:, ?{_STRING}: ?{_value(2)})*)?\}}",
}

# (random logits, the ids of some text) → the logits of a kind of model
Kind = Callable[[Tensor, np.ndarray, Vocabulary], None]


def _agree(logits_RV: Tensor, answer: np.ndarray, vocabulary: Vocabulary) -> None:
    logits_RV[torch.arange(len(answer)), torch.from_numpy(answer)] += 12


def _object(logits_RV: Tensor, answer: np.ndarray, vocabulary: Vocabulary) -> None:
    logits_RV[torch.arange(len(answer)), torch.from_numpy((answer * 7919 + 1) % vocabulary.shape.vocab_size)] += 12


def _end(logits_RV: Tensor, answer: np.ndarray, vocabulary: Vocabulary) -> None:
    logits_RV[:, vocabulary.special_tokens.eos_id] += 12


def _know_nothing(logits_RV: Tensor, answer: np.ndarray, vocabulary: Vocabulary) -> None:
    pass


KINDS: dict[str, Kind] = {"agrees": _agree, "knows nothing": _know_nothing, "objects": _object, "ends at once": _end}


def main(
    output: Annotated[Path, typer.Option(help="folder of the result")] = machine.RESULTS,
    sizes: Annotated[list[int], typer.Option(help="vocabulary sizes")] = list(VOCABULARY_SIZES),  # noqa: B006
) -> None:
    """Measure, print and write `constraints.json`."""
    torch.set_num_threads(1)
    result: dict[str, Any] = {"machine": machine.describe(), "vocabularies": {}}
    for size in sizes:
        vocabulary = vocabulary_of(size)
        assert vocabulary.tokenizer is not None
        started = time.thread_time()
        assert vocabulary.tokenizer.byte_trie is not None
        patterns: dict[str, Any] = {}
        result["vocabularies"][size] = {"trie_s": time.thread_time() - started, "patterns": patterns}
        for name, pattern in PATTERNS.items():
            patterns[name] = measure(pattern, vocabulary)
            typer.echo(f"{size} {name}: {_line(patterns[name])}")
    result["model_step"] = beside_a_model()
    for name, shares in result["model_step"].items():
        typer.echo(f"134M {name}: {shares['constraint_ms']:.2f} of {shares['step_ms']:.0f} ms a step")
    typer.echo(f"written to {machine.write('constraints', result, output)}")


def measure(pattern: str, vocabulary: Vocabulary) -> dict[str, Any]:
    """Compile a pattern and denoise one canvas with each kind of model."""
    started = time.thread_time()
    constraint = compile_constraint(pattern, vocabulary)
    compile_ms = 1000 * (time.thread_time() - started)
    steps = {kind: _steps(constraint, vocabulary, change) for kind, change in KINDS.items()}
    return {"compile_ms": compile_ms, **_size(constraint), "step_ms": steps, "draw_ms": _draws(constraint, vocabulary)}


def beside_a_model() -> dict[str, dict[str, float]]:
    """The CPU time of a step of a model of random weights with 134 M parameters, and the constraint's part of it."""
    shape = SIZES["134M"]
    vocabulary = vocabulary_of(shape["vocab_size"])
    torch.manual_seed(0)
    config = LLaDAConfig(**shape, max_sequence_length=1024)
    weights = Network(config).state_dict()
    model = CPUMaskPredictor(
        config, vocabulary.special_tokens, lambda role, depth: weights[tensor_name(role, depth)], dtype=torch.float32
    )
    return {name: _shares(model, compile_constraint(PATTERNS[name], vocabulary), vocabulary) for name in MODEL_PATTERNS}


def _shares(model: CPUMaskPredictor, constraint: Constraint, vocabulary: Vocabulary) -> dict[str, float]:
    params = GenerationParams(gen_length=GEN_LENGTH, block_length=BLOCK_LENGTH)
    canvas = prepare_response([0], params, vocabulary, constraint=constraint)
    sampler, select_viable, in_constraint = Sampler(model), canvas.select_viable, 0.0

    def timed(*arguments: Any) -> Any:
        nonlocal in_constraint
        started = time.thread_time()
        chosen = select_viable(*arguments)
        in_constraint += time.thread_time() - started
        return chosen

    vars(canvas)["select_viable"] = timed
    started = time.thread_time()
    while canvas.finish_reason is None and canvas.step < NUM_MODEL_STEPS:
        sampler.step([canvas])
    spent = time.thread_time() - started
    return {"step_ms": 1000 * spent / canvas.step, "constraint_ms": 1000 * in_constraint / canvas.step}


@torch.inference_mode()
def _draws(constraint: Constraint, vocabulary: Vocabulary) -> dict[str, float]:
    """The mean CPU time, in milliseconds, of drawing proposals at temperature 1 and of what the constraint adds."""
    params = GenerationParams(gen_length=GEN_LENGTH, block_length=BLOCK_LENGTH, temperature=1.0)
    canvas = prepare_response([0], params, vocabulary, constraint=constraint)
    logits = _logits(vocabulary, _know_nothing, np.empty(0, np.int64))
    plain: list[float] = []
    constrained: list[float] = []
    while canvas.finish_reason is None and canvas.step < NUM_DRAWS:
        plain.append(_step(canvas, next(logits), vocabulary, constrained))
    return {"plain": mean(plain), "constraint": mean(constrained)}


def _size(constraint: Constraint) -> dict[str, int]:
    arrays = [getattr(constraint, name) for name in Constraint.__dataclass_fields__]
    return {
        "states": constraint.num_states,
        "classes": constraint.num_classes,
        "arcs": len(constraint.sources_A),
        "shortest": constraint.shortest,
        "kilobytes": sum(array.nbytes for array in arrays) >> 10,
    }


def _steps(constraint: Constraint, vocabulary: Vocabulary, change: Kind) -> dict[str, float]:
    """The mean and the longest CPU time, in milliseconds, that the constraint takes in a step."""
    milliseconds: list[float] = []
    answer = np.array(_run(constraint, vocabulary, _know_nothing, np.empty(0, np.int64), milliseconds), dtype=np.int64)
    milliseconds.clear()
    _run(constraint, vocabulary, change, answer, milliseconds)
    return {"mean": mean(milliseconds), "max": max(milliseconds)}


@torch.inference_mode()
def _run(
    constraint: Constraint, vocabulary: Vocabulary, change: Kind, answer: np.ndarray, milliseconds: list[float]
) -> list[int]:
    """Denoise a canvas, one token a step; returns the response with its end filled up."""
    params = GenerationParams(gen_length=GEN_LENGTH, block_length=BLOCK_LENGTH)
    canvas = prepare_response([0], params, vocabulary, constraint=constraint)
    logits = _logits(vocabulary, change, answer)
    while canvas.finish_reason is None:
        _step(canvas, next(logits), vocabulary, milliseconds)
    eos_id = vocabulary.special_tokens.eos_id
    return [*canvas.text_ids, *[eos_id] * (GEN_LENGTH - len(canvas.text_ids))]


def _logits(vocabulary: Vocabulary, change: Kind, answer: np.ndarray) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    noise_RV = torch.randn(BLOCK_LENGTH, vocabulary.shape.vocab_size, generator=generator)
    for step in range(GEN_LENGTH):
        logits_RV = noise_RV.roll(step, dims=0).repeat(GEN_LENGTH // BLOCK_LENGTH, 1)
        change(logits_RV, answer, vocabulary)
        yield logits_RV


def _step(canvas: Canvas, logits_RV: Tensor, vocabulary: Vocabulary, milliseconds: list[float]) -> float:
    """Run a step; append what the constraint takes, and return what drawing the proposals does."""
    positions_R = canvas.proposal_positions()
    drawing = time.thread_time()
    coordinates = Coordinates.of([(canvas, canvas.step, positions_R)], logits_RV.device)
    recipe = Recipe.of(canvas, canvas.step)
    drafted = draft(logits_RV[positions_R], recipe, coordinates, vocab_size=vocabulary.shape.vocab_size)
    proposals = unpack(copy_to_host([drafted.packed]), 0)
    started = time.thread_time()
    canvas.commit(positions_R, *canvas.select_viable(positions_R, proposals, drafted))
    milliseconds.append(1000 * (time.thread_time() - started))
    return 1000 * (started - drawing)


def _line(found: dict[str, Any]) -> str:
    steps = ", ".join(f"{kind} {step['mean']:.2f} (max {step['max']:.2f})" for kind, step in found["step_ms"].items())
    sizes = f"{found['states']} states, {found['classes']} classes, {found['arcs']} arcs, {found['kilobytes']} KB"
    draws = f"{found['draw_ms']['constraint']:.0f} beside {found['draw_ms']['plain']:.0f} at temperature 1"
    return f"compiled in {found['compile_ms']:.0f} ms; {sizes}; ms a step: {steps}; {draws}"


if __name__ == "__main__":
    typer.run(main)
