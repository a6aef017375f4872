"""The bundled model: small, complete, and taught what its card says."""

import pytest

from llada_core import DEMO_FOLDER, GenerationParams, generate
from llada_core.sampling.params import PRESETS
from llada_core.text.tokenizer import Message
from training.demo.splits import make_splits
from training.demo.stories import recognize, with_articles


def ask(demo, tokenizer, questions, **params):
    """The answers to questions, or to conversations given as their turns."""
    prompts = [
        [Message(("user", "assistant")[i % 2], turn) for i, turn in enumerate(turns)]
        for turns in ((question,) if isinstance(question, str) else question for question in questions)
    ]
    results = generate(demo, prompts, GenerationParams(**{"gen_length": 32, **params}), tokenizer=tokenizer)
    return [result.text for result in results]


def test_the_checkpoint_is_complete_and_small():
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "README.md"} <= {
        file.name for file in DEMO_FOLDER.iterdir()
    }
    assert sum(file.stat().st_size for file in DEMO_FOLDER.iterdir()) < 25_000_000


def test_it_knows_the_capital_of_france_at_short_and_default_length(demo, demo_tokenizer):
    for length in (32, 128):
        assert "Paris" in ask(demo, demo_tokenizer, ["What is the capital of France?"], gen_length=length)[0]


@pytest.mark.parametrize(
    ("task", "share"),
    [
        ("sums of one-digit numbers (taught)", 1.0),
        ("differences of one-digit numbers (taught)", 1.0),
        ("sums", 0.97),
        ("differences", 0.97),
        ("capitals", 0.97),
        ("definitions", 0.9),
        ("unknown words and places", 0.9),
        ("second questions", 0.9),
    ],
)
def test_it_answers_what_its_card_says(demo, demo_tokenizer, task, share):
    questions = [question for question in make_splits(0).questions if question.task == task]
    questions = questions[:: max(1, len(questions) // 60)]
    answers = ask(demo, demo_tokenizer, [question.turns for question in questions])
    wrong = [
        (question.turns[-1], answer)
        for question, answer in zip(questions, answers, strict=True)
        if question.answer not in answer
    ]
    assert len(questions) >= 50
    assert len(wrong) <= (1 - share) * len(questions), wrong


@pytest.mark.parametrize("preset", PRESETS)
def test_it_tells_whole_stories_about_any_hero_under_every_preset(demo, demo_tokenizer, preset):
    heroes = ["dragon", "princess", "dog", "spoon", "cloud", "robot", "yak", "teacher", "volcano", "owl"]
    requests = [with_articles(f"Tell me a story about a {hero}.") for hero in heroes]
    told = [recognize(text.strip()) for text in ask(demo, demo_tokenizer, requests, gen_length=128, **PRESETS[preset])]
    whole = [story for story, hero in zip(told, heroes, strict=True) if story and story.hero == hero]
    assert len(whole) >= 7, told


def test_it_tells_a_story_of_several_sentences(demo, demo_tokenizer):
    story = ask(demo, demo_tokenizer, ["Tell me a story about a fox."], gen_length=96)[0]
    assert "fox" in story
    assert story.count(".") >= 3


def test_its_answers_hold_no_special_tokens(demo, demo_tokenizer):
    for answer in ask(demo, demo_tokenizer, ["Hello!", "Who are you?", "What is 2 + 3?"]):
        assert answer.strip()
        assert "<|" not in answer
