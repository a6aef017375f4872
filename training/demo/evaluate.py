"""Measures a demo model for the tables of its model card: `python -m training.demo.evaluate MODEL HELDOUT`.

Everything is greedy and nothing is selected: every held-out question is asked, and stories are shown in the order of
their requests.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Annotated

import torch
import typer

from llada_core import GenerationParams, generate, load_model, load_tokenizer
from llada_core.model.interface import MaskPredictor
from llada_core.sampling.prepare import Gap, Vocabulary, prepare_infilling
from llada_core.sampling.sampler import Sampler
from llada_core.text.tokenizer import Message, Tokenizer
from training.demo.sampling import stream
from training.demo.stories import Story, lexicon, recognize, tell, with_articles

SMALL_TALK = (
    "Hello!",
    "Hi there",
    "Good morning!",
    "Who are you?",
    "What is your name?",
    "What can you do?",
    "Thanks!",
)
UNKNOWN = (
    "Who won the football match yesterday?",
    "How do I install Linux?",
    "What is the population of China?",
    "Write a poem about the sea.",
    "Explain quantum physics.",
    "What is the best restaurant in Paris?",
)
_ANSWER_LENGTH = 32
_STORY_LENGTH = 128
# Short blocks too: within a long one the surest words come first, and words of several plots may mix.
_STORY_BLOCK_LENGTHS = (8, 32)


def main(
    model: Annotated[Path, typer.Argument(help="Checkpoint folder.")],
    heldout: Annotated[Path, typer.Argument(help="heldout.jsonl of the data build.")],
    limit: Annotated[int | None, typer.Option(help="Ask only this many questions of each task.")] = None,
    stories: Annotated[int, typer.Option(help="Stories to measure; the first ten are shown.")] = 100,
    show_wrong: Annotated[int, typer.Option(help="Wrong answers to print for each task.")] = 0,
) -> None:
    """Print Markdown: accuracy on held-out questions, small talk, stories, infilled sentences."""
    network, tokenizer = load_model(model), load_tokenizer(model)
    assert tokenizer is not None
    _print_accuracy(network, tokenizer, heldout, limit, show_wrong)
    _print_answers(network, tokenizer)
    _print_stories(network, tokenizer, stories)
    _print_infilling(network, tokenizer)


def _print_accuracy(
    network: MaskPredictor, tokenizer: Tokenizer, heldout: Path, limit: int | None, show_wrong: int
) -> None:
    questions: dict[str, list[tuple[str, str]]] = {}
    for line in heldout.read_text().splitlines():
        record = json.loads(line)
        questions.setdefault(record["task"], []).append((record["messages"][-1]["content"], record["answer"]))
    typer.echo("| task | right |\n|---|---|")
    for task, pairs in questions.items():
        # Every n-th question: the file is sorted, and its head has only one phrasing.
        asked = pairs[:: max(1, len(pairs) // limit)] if limit else pairs
        answers = _ask(network, tokenizer, [question for question, _ in asked], _ANSWER_LENGTH)
        wrong = [(pair, answer) for pair, answer in zip(asked, answers, strict=True) if pair[1] not in answer]
        num_right = len(asked) - len(wrong)
        typer.echo(f"| {task} | {num_right} of {len(asked)} ({num_right / len(asked):.1%}) |")
        for (question, expected), answer in wrong[:show_wrong]:
            typer.echo(f"  {question!r} → {answer!r}, expected {expected!r}")


def _print_answers(network: MaskPredictor, tokenizer: Tokenizer) -> None:
    typer.echo("\n| asked | answer |\n|---|---|")
    questions = (*SMALL_TALK, *UNKNOWN)
    for question, answer in zip(questions, _ask(network, tokenizer, questions, _ANSWER_LENGTH), strict=True):
        typer.echo(f"| {question} | {answer} |")


def _print_stories(network: MaskPredictor, tokenizer: Tokenizer, count: int) -> None:
    """Print how many stories are whole, that is, could have been told by the grammar."""
    rng = stream(0, "evaluation/stories")
    heroes = [rng.choice(lexicon()["animal"] + lexicon()["person"]) for _ in range(count)]
    requests = [with_articles(f"Tell me a story about a {hero}.") for hero in heroes]
    told = {
        block_length: _ask(network, tokenizer, requests, _STORY_LENGTH, block_length=block_length)
        for block_length in _STORY_BLOCK_LENGTHS
    }
    typer.echo(
        f"\n{count} stories; whole: one plot, one hero who meets another, every sentence the grammar's.\n\n"
        "| block length | whole | about the hero asked for | both | plots |\n|---|---|---|---|---|"
    )
    for block_length, texts in told.items():
        typer.echo(f"| {block_length} | {_story_counts(heroes, texts)} |")
    typer.echo(f"\nThe first ten of block length {_STORY_BLOCK_LENGTHS[0]}:\n")
    for hero, text in list(zip(heroes, told[_STORY_BLOCK_LENGTHS[0]], strict=True))[:10]:
        typer.echo(with_articles(f"- *a {hero}*: ") + text)


def _story_counts(heroes: Sequence[str], told: Sequence[str]) -> str:
    """The number of stories that are whole, about the requested hero, and both, and of plots, as cells of a table."""
    recognized = [recognize(text) for text in told]
    num_about_hero = sum(f" {hero} " in text.split(".")[0] + " " for hero, text in zip(heroes, told, strict=True))
    num_whole = sum(story is not None for story in recognized)
    num_both = sum(story is not None and story.hero == hero for hero, story in zip(heroes, recognized, strict=True))
    plots = {story.plot for story in recognized if story is not None}
    return f"{num_whole} | {num_about_hero} | {num_both} | {len(plots)}"


def _print_infilling(network: MaskPredictor, tokenizer: Tokenizer) -> None:
    typer.echo("\nA missing sentence, filled in:\n")
    rng = stream(0, "evaluation/infilling")
    for story in (tell(rng) for _ in range(5)):
        before, missing, after = _without_a_sentence(story, rng)
        segments: list[Sequence[int] | Gap] = [
            tokenizer.encode_plain(before),
            Gap(len(tokenizer.encode_plain(missing))),
            tokenizer.encode_plain(after),
        ]
        canvas = prepare_infilling(segments, GenerationParams(), Vocabulary.of(network))
        sampler = Sampler(network)
        while canvas.finish_reason is None:
            sampler.step([canvas])
        start = len(tokenizer.encode_plain(before))
        filled = tokenizer.decode(canvas.response[start : start + len(tokenizer.encode_plain(missing))])
        typer.echo(f"- {before} **{filled.strip()}** {after.strip()}")


def _without_a_sentence(story: Story, rng: Random) -> tuple[str, str, str]:
    sentences = story.text.split(". ")
    index = rng.randrange(1, len(sentences) - 1)
    before, after = ". ".join(sentences[:index]) + ".", " " + ". ".join(sentences[index + 1 :])
    return before, f" {sentences[index]}.", after


def _ask(
    network: MaskPredictor,
    tokenizer: Tokenizer,
    questions: tuple[str, ...] | list[str],
    length: int,
    *,
    block_length: int | None = None,
) -> list[str]:
    prompts = [[Message("user", question)] for question in questions]
    results = generate(
        network, prompts, GenerationParams(gen_length=length, block_length=block_length), tokenizer=tokenizer
    )
    return [result.text or "" for result in results]


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    typer.run(main)
