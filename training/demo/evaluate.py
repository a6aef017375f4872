"""Measures a demo model for the tables of its model card: `python -m training.demo.evaluate MODEL HELDOUT`.

Everything is greedy and nothing is selected: every held-out question is asked, and stories and gaps are shown in the
order in which they were drawn.
"""

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated

import torch
import typer

from llada_core import GenerationParams, generate, load_model, load_tokenizer
from llada_core.model.interface import MaskPredictor
from llada_core.sampling.params import PRESETS, Preset
from llada_core.sampling.prepare import Gap, Vocabulary, prepare_infilling
from llada_core.sampling.sampler import Sampler
from llada_core.text.tokenizer import Message, Tokenizer
from training.data.formats import FilledGap
from training.demo.facts import countries
from training.demo.infilling import few_words, filled_gaps, sentence
from training.demo.sampling import stream
from training.demo.splits import make_splits
from training.demo.stories import REQUESTS, heroes, recognize, tell, with_articles

SMALL_TALK = (
    "Hello!",
    "Hi there",
    "Good morning!",
    "How are you today?",
    "Who are you?",
    "What is your name?",
    "What can you do?",
    "Tell me a joke.",
    "What is the opposite of hot?",
    "What color is the sky?",
    "What day comes after Monday?",
    "Count from 1 to 10.",
    "Do you like music?",
    "Thanks!",
)
UNKNOWN = (
    "Who won the football match yesterday?",
    "How do I install Linux?",
    "What is the population of China?",
    "Write a poem about the sea.",
    "Explain quantum physics.",
    "What is the best restaurant in Paris?",
    "What is 123 + 456?",
    "What is love?",
)
_ANSWER_LENGTH = 32
_LONGER_ANSWERS = {"calls of the calculator": 64}
# The server's default.
_STORY_LENGTH = 128
_NUM_SHOWN = 10


def main(
    model: Annotated[Path, typer.Argument(help="Checkpoint folder.")],
    heldout: Annotated[Path, typer.Argument(help="heldout.jsonl of the data build.")],
    limit: Annotated[int | None, typer.Option(help="Ask only this many questions of each task.")] = None,
    stories: Annotated[int, typer.Option(help="Stories and gaps to measure; the first ten are shown.")] = 100,
    show_wrong: Annotated[int, typer.Option(help="Wrong answers to print for each task.")] = 0,
) -> None:
    """Print Markdown: accuracy on held-out questions, small talk, stories, filled gaps."""
    network, tokenizer = load_model(model), load_tokenizer(model)
    assert tokenizer is not None
    _print_accuracy(network, tokenizer, heldout, limit, show_wrong)
    _print_answers(network, tokenizer)
    _print_stories(network, tokenizer, stories)
    _print_infilling(network, tokenizer, stories)


def _print_accuracy(
    network: MaskPredictor, tokenizer: Tokenizer, heldout: Path, limit: int | None, show_wrong: int
) -> None:
    tasks: dict[str, list[tuple[list[Message], str]]] = {}
    for line in heldout.read_text().splitlines():
        record = json.loads(line)
        messages = [Message(message["role"], message["content"]) for message in record["messages"]]
        tasks.setdefault(record["task"], []).append((messages, record["answer"]))
    typer.echo("| task | right |\n|---|---|")
    for task, pairs in tasks.items():
        # Every n-th question: the file is sorted, and its head has only one phrasing.
        asked = pairs[:: max(1, len(pairs) // limit)] if limit else pairs
        length = _LONGER_ANSWERS.get(task, _ANSWER_LENGTH)
        answers = _answers(network, tokenizer, [messages for messages, _ in asked], length)
        wrong = [(pair, answer) for pair, answer in zip(asked, answers, strict=True) if pair[1] not in answer]
        num_right = len(asked) - len(wrong)
        typer.echo(f"| {task} | {num_right} of {len(asked)} ({num_right / len(asked):.1%}) |")
        for (messages, expected), answer in wrong[:show_wrong]:
            typer.echo(f"  {messages[-1].content!r} → {answer!r}, expected {expected!r}")


def _print_answers(network: MaskPredictor, tokenizer: Tokenizer) -> None:
    typer.echo("\n| asked | answer |\n|---|---|")
    questions = (*SMALL_TALK, *UNKNOWN)
    prompts = [[Message("user", question)] for question in questions]
    for question, answer in zip(questions, _answers(network, tokenizer, prompts, _ANSWER_LENGTH), strict=True):
        typer.echo(f"| {question} | {answer} |")


def _print_stories(network: MaskPredictor, tokenizer: Tokenizer, count: int) -> None:
    """Print how many stories are whole, that is, could have been told by the grammar, under every preset.

    Half of the heroes were held out.
    """
    rng = stream(0, "evaluation/stories")
    held_out = sorted(make_splits(0).unknown & set(heroes()))
    taught = [hero for hero in heroes() if hero not in held_out]
    asked = [rng.choice((taught, held_out)[i % 2]) for i in range(count)]
    prompts = [[Message("user", with_articles(REQUESTS[0].format(hero=hero)))] for hero in asked]
    told = {preset: _answers(network, tokenizer, prompts, _STORY_LENGTH, preset=preset) for preset in PRESETS}
    typer.echo(
        f"\n{count} stories; whole: one plot, one hero who meets another, every sentence the grammar's.\n\n"
        "| preset | whole | about the hero asked for | both | plots |\n|---|---|---|---|---|"
    )
    for preset, texts in told.items():
        typer.echo(f"| `{preset}` | {_story_counts(asked, texts)} |")
    typer.echo(f"\nThe first {_NUM_SHOWN}:\n")
    for hero, text in islice(zip(asked, told["exact"], strict=True), _NUM_SHOWN):
        typer.echo(with_articles(f"- *a {hero}*: ") + text)


def _story_counts(asked: Sequence[str], told: Sequence[str]) -> str:
    """The number of stories that are whole, about the requested hero, and both, and of plots, as cells of a table."""
    recognized = [recognize(text) for text in told]
    num_about_hero = sum(f" {hero} " in text.split(".")[0] + " " for hero, text in zip(asked, told, strict=True))
    num_whole = sum(story is not None for story in recognized)
    num_both = sum(story is not None and story.hero == hero for hero, story in zip(asked, recognized, strict=True))
    plots = {story.plot for story in recognized if story is not None}
    return f"{num_whole} | {num_about_hero} | {num_both} | {len(plots)}"


def _print_infilling(network: MaskPredictor, tokenizer: Tokenizer, count: int) -> None:
    """Print gaps in stories and in statements, and how many of the filled texts the recipe could have written."""
    rng = stream(0, "evaluation/infilling")
    told = (tell(rng, hero=rng.choice(heroes())).text for _ in iter(int, 1))
    for name, cut in (("A few missing words", few_words), ("A missing sentence", sentence)):
        texts = [_fill(network, tokenizer, gap) for gap in islice(filled_gaps(told, rng, cut=cut), count)]
        num_whole = sum(recognize(text.replace("**", "")) is not None for text in texts)
        typer.echo(f"\n{name} in {count} stories: {num_whole} are whole. The first {_NUM_SHOWN}:\n")
        for text in texts[:_NUM_SHOWN]:
            typer.echo(f"- {text}")
    asked = list(countries())
    filled = [_fill(network, tokenizer, FilledGap(f"The capital of {c.country} is ", c.capital, ".")) for c in asked]
    num_right = sum(f"**{c.capital}**" in text for c, text in zip(asked, filled, strict=True))
    typer.echo(f"\nA missing capital in {len(asked)} statements: {num_right} are right.")


def _fill(network: MaskPredictor, tokenizer: Tokenizer, text: FilledGap) -> str:
    """The text with its gap filled by the model, in bold."""
    before, gap, after = (tokenizer.encode_plain(part) for part in (text.prefix, text.middle, text.suffix))
    segments: list[Sequence[int] | Gap] = [before, Gap(len(gap)), after]
    canvas = prepare_infilling([s for s in segments if s], GenerationParams(), Vocabulary.of(network))
    sampler = Sampler(network)
    while canvas.finish_reason is None:
        sampler.step([canvas])
    filled = tokenizer.decode(canvas.response[len(before) : len(before) + len(gap)])
    space = " " * (len(filled) - len(filled.lstrip()))
    return f"{text.prefix}{space}**{filled.strip()}**{filled[len(filled.rstrip()) :]}{text.suffix}"


@torch.inference_mode()
def _answers(
    network: MaskPredictor,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[Message]],
    gen_length: int,
    *,
    preset: Preset = "exact",
) -> list[str]:
    params = GenerationParams.with_preset(preset, gen_length=gen_length)
    results = generate(network, [list(prompt) for prompt in prompts], params, tokenizer=tokenizer)
    return [(result.text or "").strip() for result in results]


if __name__ == "__main__":
    typer.run(main)
