"""The bundled model: small, complete, and taught what its card says."""

import json

import pytest

from llada_core import DEMO_FOLDER, GenerationParams, generate
from llada_core.sampling.params import PRESETS
from tests.training.conftest import succeed
from training.demo.decisions import held_out_decisions
from training.demo.sampling import Dialogue, stream
from training.demo.splits import make_splits
from training.demo.stories import recognize, with_articles

# A sixth of the forward passes of one token a step; hundreds of questions are asked.
BALANCED = PRESETS["balanced"]


def ask(demo, tokenizer, questions, **params):
    """The answers to questions, or to conversations: their turns, or dialogues with a system's turn."""
    dialogues = [Dialogue((one,)) if isinstance(one, str) else one for one in questions]
    prompts = [(one if isinstance(one, Dialogue) else Dialogue(one)).messages() for one in dialogues]
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
        ("products up to 10 * 10 (taught)", 0.97),
        ("sums", 0.98),
        ("differences", 0.98),
        ("capitals", 0.97),
        ("definitions", 0.95),
        ("unknown words and places", 0.85),
        ("second questions", 0.93),
        ("calls of the calculator", 0.93),
        ("answers with its result", 0.93),
    ],
)
def test_it_answers_nearly_as_often_as_its_card_says(demo, demo_tokenizer, task, share):
    questions = [question for question in make_splits(0).questions if question.task == task]
    questions = questions[:: max(1, len(questions) // 60)]
    dialogues = [Dialogue(question.turns, question.system) for question in questions]
    answers = ask(demo, demo_tokenizer, dialogues, gen_length=64 if "calculator" in task else 32, **BALANCED)
    wrong = [
        (question.turns[-1], answer)
        for question, answer in zip(questions, answers, strict=True)
        if question.answer not in answer
    ]
    assert len(questions) >= 50
    assert len(wrong) <= (1 - share) * len(questions), wrong


def test_it_tells_what_is_true_of_what_it_was_taught(tmp_path):
    decisions = list(held_out_decisions(stream(0, "decisions")))[::10]
    rows = [json.dumps(decision.row()) for decision in decisions]
    (tmp_path / "decisions.jsonl").write_text("\n".join(rows), encoding="ascii")
    command = ["eval", "--model-name-or-path", DEMO_FOLDER, "--decisions", tmp_path / "decisions.jsonl", "--json"]
    scores = json.loads(succeed(*command))
    assert scores["predicate"]["num_questions"] > 90
    assert scores["predicate"]["accuracy"] > 0.88 and scores["choice"]["accuracy"] > 0.85


@pytest.mark.parametrize("preset", PRESETS)
def test_it_tells_stories_about_what_was_asked_for_under_every_preset(demo, demo_tokenizer, preset):
    heroes = ["dragon", "princess", "dog", "spoon", "cloud", "robot", "cat", "teacher", "king", "owl"]
    requests = [with_articles(f"Tell me a story about a {hero}.") for hero in heroes]
    told = ask(demo, demo_tokenizer, requests, gen_length=96, **PRESETS[preset])
    about = [f" {hero} " in text.split(".")[0] for hero, text in zip(heroes, told, strict=True)]
    assert sum(about) >= 9, told
    assert sum(recognize(text.strip()) is not None for text in told) >= 6, told


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is 2 + 2?", "2 + 2 = 4."),
        ("What is 9 - 4?", "9 - 4 = 5."),
        ("What is a dog?", "A dog is a pet that barks and guards the house."),
        ("What is a cat?", "A cat is a small pet that purrs and catches mice."),
        ("What is the capital of England?", "The capital of England is London."),
        ("How are you today?", "I am doing well, thank you. How can I help you?"),
        ("Who is Einstein?", "I don't know that. I am a small demo model."),
        (("What is the capital of France?", "The capital of France is Paris.", "And of Spain?"), "Madrid"),
    ],
)
def test_the_first_things_that_people_ask_are_answered(demo, demo_tokenizer, question, answer):
    assert answer in ask(demo, demo_tokenizer, [question], gen_length=64)[0]


def test_it_tells_a_story_of_several_sentences(demo, demo_tokenizer):
    story = ask(demo, demo_tokenizer, ["Tell me a story about a fox."], gen_length=96)[0]
    assert "fox" in story
    assert story.count(".") >= 3


def test_its_answers_hold_no_special_tokens(demo, demo_tokenizer):
    for answer in ask(demo, demo_tokenizer, ["Hello!", "Who are you?", "What is 2 + 3?"]):
        assert answer.strip()
        assert "<|" not in answer
