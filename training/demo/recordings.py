"""Records what the demo model answers rightly, for `llada-train distill`: `python -m training.demo.recordings`.

The questions are drawn as those of the training data, but others. An answer is recorded under `balanced`, the token ids
and the step that wrote each of them, as `llada-train generate --trajectory` does. What is wrong is left out: a model
that learns to be sure of it is only more surely wrong.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from llada_core import generate, load_model, load_tokenizer
from llada_core.model.interface import MaskPredictor
from llada_core.text.tokenizer import Tokenizer
from training.demo.build import dialogues_of
from training.demo.decisions import decision_dialogues
from training.demo.sampling import Dialogue, stream
from training.demo.splits import make_splits
from training.demo.stories import recognize

NUM_DIALOGUES = {
    "capitals": 1300,
    "arithmetic": 1800,
    "definitions": 1300,
    "unknown": 1800,
    "smalltalk": 350,
    "chitchat": 100,
    "sequences": 400,
    "stories": 700,
    "repeat": 350,
    "beginnings": 250,
    "tools": 450,
    "decisions": 600,
}
_CANVAS = {"stories": 128, "tools": 64}
_ANSWER_LENGTH = 32
_AT_ONCE = 32


class Question(NamedTuple):
    """Turns that end with the user's, and the answer that is right."""

    messages: list[dict[str, str]]
    answer: str


def main(
    model: Annotated[Path, typer.Option(help="Checkpoint folder.")],
    output: Annotated[Path, typer.Option(help="File to write, JSON lines.")],
    seed: Annotated[int, typer.Option(help="Decides which questions are asked.")] = 0,
    scale: Annotated[float, typer.Option(help="Factor for the numbers of questions.", min=0.0)] = 1.0,
) -> None:
    """Ask the model, write what it answers rightly, and print how much that is of each part."""
    network, tokenizer = load_model(model), load_tokenizer(model)
    assert tokenizer is not None
    with output.open("w", encoding="ascii", newline="\n") as file:
        for part, dialogues in _dialogues(seed).items():
            questions = list(_questions(islice(dialogues, round(NUM_DIALOGUES[part] * scale))))
            length, num_right = _CANVAS.get(part, _ANSWER_LENGTH), 0
            for start in range(0, len(questions), _AT_ONCE):
                for line in _right_answers(network, tokenizer, questions[start : start + _AT_ONCE], length):
                    file.write(json.dumps(line) + "\n")
                    num_right += 1
            typer.echo(f"{part:<12} {num_right:>5} of {len(questions):>5} answers are right")


def is_right(text: str, answer: str) -> bool:
    """Whether an answer is the expected one, or, where a story is expected, a whole one."""
    return text.strip() == answer or (recognize(answer) is not None and recognize(text) is not None)


def _right_answers(
    network: MaskPredictor, tokenizer: Tokenizer, questions: Sequence[Question], length: int
) -> Iterator[dict[str, Any]]:
    prompts = [question.messages for question in questions]
    results = generate(network, prompts, tokenizer=tokenizer, preset="balanced", gen_length=length)
    for question, result in zip(questions, results, strict=True):
        assert result.text is not None
        if is_right(result.text, question.answer):
            yield {"prompt": question.messages, "text": result.text, "trajectory": asdict(result.trajectory)}


def _dialogues(seed: int) -> dict[str, Iterator[Dialogue]]:
    splits = make_splits(seed)
    decisions = decision_dialogues(splits.exercises, splits.unknown, stream(seed, "recordings/decisions"))
    return {**dialogues_of(splits, seed, "recordings"), "decisions": decisions}


def _questions(dialogues: Iterator[Dialogue]) -> Iterator[Question]:
    for dialogue in dialogues:
        messages = dialogue.messages()
        for number, message in enumerate(messages):
            if message["role"] == "assistant":
                yield Question(messages[:number], message["content"])


if __name__ == "__main__":
    typer.run(main)
