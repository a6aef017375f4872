"""The bundled model: small, complete, and taught what its card says."""

from llada_core import DEMO_FOLDER, GenerationParams, generate
from llada_core.sampling.params import PRESETS
from llada_core.text.tokenizer import Message
from training.demo.splits import make_splits

# A sixth of the forward passes of one token a step; hundreds of questions are asked.
BALANCED = PRESETS["balanced"]


def ask(demo, tokenizer, questions, **params):
    prompts = [[Message("user", question)] for question in questions]
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


def test_it_knows_most_capitals_in_phrasings_it_never_saw(demo, demo_tokenizer):
    questions = [question for question in make_splits(0).questions if question.task == "capitals"][::5]
    answers = ask(demo, demo_tokenizer, [question.question for question in questions], **BALANCED)
    correct = sum(question.answer in answer for question, answer in zip(questions, answers, strict=True))
    assert len(questions) > 80
    assert correct / len(questions) >= 0.5


def test_it_tells_a_story_of_several_sentences(demo, demo_tokenizer):
    story = ask(demo, demo_tokenizer, ["Tell me a story about a fox."], gen_length=96)[0]
    assert "fox" in story
    assert story.count(".") >= 3


def test_it_adds_most_pairs_it_never_saw(demo, demo_tokenizer):
    questions = [question for question in make_splits(0).questions if question.task == "sums"][::5]
    answers = ask(demo, demo_tokenizer, [question.question for question in questions], **BALANCED)
    correct = sum(f"= {question.answer}." in answer for question, answer in zip(questions, answers, strict=True))
    assert correct / len(questions) >= 0.5


def test_its_answers_hold_no_special_tokens(demo, demo_tokenizer):
    for answer in ask(demo, demo_tokenizer, ["Hello!", "Who are you?", "What is 2 + 3?"]):
        assert answer.strip()
        assert "<|" not in answer
