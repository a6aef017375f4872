import json

import pytest
from pydantic import ValidationError

from llada_core import DEMO_FOLDER, load_tokenizer
from llada_core.sampling.params import EndThinking
from tests.training.conftest import llada_train, succeed, write_jsonl
from training.options.fields import GenerateOptions

FRANCE = "What is the capital of France?"
SHORT = ["--model-name-or-path", DEMO_FOLDER, "--gen-length", 16]


def test_a_prompt_is_answered():
    assert succeed("generate", *SHORT, "--prompt", FRANCE).strip() == "The capital of France is Paris."


@pytest.mark.parametrize(
    "options",
    [
        ["--method", "fixed_length"],
        ["--method", "semi_autoregressive_origin", "--block-length", 8],
        ["--method", "semi_autoregressive_padding", "--block-length", 8, "--steps", 16],
        ["--remasking", "random", "--cfg-scale", 0.5],
        ["--preset", "fast", "--cache", "prefix", "--cache-refresh-interval", 2],
        ["--entropy-bound", 0.1],
    ],
)
def test_every_method_runs(options):
    assert succeed("generate", *SHORT, "--prompt", "Tell me a story about a fox.", *options).strip()


def test_stop_strings_and_biases_reach_the_sampler(demo_tokenizer):
    assert succeed("generate", *SHORT, "--prompt", FRANCE, "--stop", " is").strip() == "The capital of France"
    (token,) = demo_tokenizer.encode_plain(" Rome")
    bias = f"{token}=100"
    assert set(succeed("generate", *SHORT, "--prompt", FRANCE, "--logit-bias", bias).split()) == {"Rome"}
    refused = llada_train("generate", *SHORT, "--prompt", FRANCE, "--logit-bias", "Rome")
    assert refused.returncode and "it must be ID=BIAS" in refused.stderr


def test_the_end_of_thinking_is_written_as_one_text():
    options = {"model_name_or_path": "model", "prompt": ["x"]}
    params = GenerateOptions(**options, end_thinking="27,91:100:3").generation_params(seed=0)
    assert params.end_thinking == EndThinking((27, 91), boost=100, power=3)
    for text in ("27", "a:1:1", "5:-1:1"):
        with pytest.raises(ValidationError, match=f"end_thinking is {text}; it must be IDS:BOOST:POWER"):
            GenerateOptions(**options, end_thinking=text)


def test_a_base_model_is_prompted_without_the_template():
    assert succeed("generate", *SHORT, "--prompt", "Once upon a time", "--no-is-instruct").strip()


def test_an_interrupted_file_continues_where_it_stopped(tmp_path):
    prompts = [{"prompt": f"What is {n} + 1?"} for n in range(5)]
    prompts.append({"messages": [{"role": "user", "content": FRANCE}]})
    source, output = write_jsonl(tmp_path / "in.jsonl", prompts), tmp_path / "out.jsonl"
    options = ["generate", *SHORT, "--input", source, "--output", output, "--batch-size", 2]
    succeed(*options)
    whole = output.read_text()
    results = [json.loads(line) for line in whole.splitlines()]
    assert [record["index"] for record in results] == list(range(6))
    assert results[5]["text"] == "The capital of France is Paris."
    # The process was killed in the middle of a line.
    output.write_text(whole[: whole.index("\n", 300) + 20])
    assert "of 6 prompts are in" in succeed(*options)
    assert output.read_text() == whole


def test_a_trajectory_says_which_step_committed_each_token(tmp_path):
    source, output = write_jsonl(tmp_path / "in.jsonl", [{"prompt": FRANCE}]), tmp_path / "out.jsonl"
    options = ["generate", *SHORT, "--input", source, "--output", output, "--entropy-threshold", 0.1]
    succeed(*options, "--trajectory")
    (record,) = [json.loads(line) for line in output.read_text().splitlines()]
    ids, steps = record["trajectory"]["token_ids"], record["trajectory"]["commit_steps"]
    assert len(ids) == len(steps) == 16
    assert {step for step in steps if step is not None} == set(range(record["denoising_steps"]))
    text = load_tokenizer(DEMO_FOLDER).decode([i for i, step in zip(ids, steps, strict=True) if step is not None])
    assert text.startswith(record["text"])
    # Lines with and without do not mix.
    assert "choose another --output" in llada_train(*options).stderr
    refused = llada_train("generate", *SHORT, "--prompt", FRANCE, "--trajectory")
    assert "trajectory is written into output; give that too" in refused.stderr


def test_results_of_other_prompts_are_not_appended_to(tmp_path):
    output = tmp_path / "out.jsonl"
    source = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "x"}])
    succeed("generate", *SHORT, "--input", source, "--output", output)
    other = write_jsonl(tmp_path / "b.jsonl", [{"prompt": "y"}])
    result = llada_train("generate", *SHORT, "--input", other, "--output", output)
    assert "out.jsonl, line 1: is not the result of line 1 of --input" in result.stderr


def test_results_of_other_options_are_not_appended_to(tmp_path):
    source, output = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "x"}, {"prompt": "y"}]), tmp_path / "out.jsonl"
    options = ["generate", *SHORT, "--input", source, "--output", output]
    succeed(*options)
    result = llada_train(*options, "--temperature", 0.5)
    assert "out.jsonl, line 1: was made with" in result.stderr
    assert "'temperature': 0.5" in result.stderr
    # The same options, spelled differently.
    same = ["--batch-size", 1, "--model-name-or-path", f"{DEMO_FOLDER}/../demo", "--temperature", 0]
    assert "2 of 2 prompts are in" in succeed(*options, *same)


def test_an_option_that_overrides_a_preset_is_another_option(tmp_path):
    source, output = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "x"}]), tmp_path / "out.jsonl"
    options = ["generate", *SHORT, "--input", source, "--output", output, "--preset", "fast"]
    succeed(*options)
    assert "was made with" in llada_train(*options, "--cache", "none").stderr


def test_results_that_cannot_be_written_are_refused_before_the_model_is_loaded(tmp_path):
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "x"}])
    result = llada_train("generate", *SHORT, "--input", source, "--output", "/proc/out.jsonl")
    assert "--output /proc: cannot be written" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompt", "x", "--confidence-threshold", 0.9, "--steps", 8], "steps is 8; it must be absent"),
        ([], "give either prompt or input"),
        (["--prompt", "x", "--output", "y"], "input and output go together"),
        (["--prompt", "x", "--gen-length", 600], "prompt 1 has"),
        (["--prompt", "x", "--device", "gpu"], "device is 'gpu'; it must be auto, cpu, cuda, cuda:N or mps"),
        (["--prompt", "x", "--method", "fixed_length", "--block-length", 4], "block_length is 4; it must be absent"),
    ],
)
def test_options_that_contradict_each_other_are_named(options, message):
    result = llada_train("generate", *SHORT, *options)
    assert result.returncode == 1
    assert message in result.stderr


def test_a_line_without_a_prompt_is_named(tmp_path):
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "x"}, {"question": "y"}])
    result = llada_train("generate", *SHORT, "--input", source, "--output", tmp_path / "out.jsonl")
    assert 'in.jsonl, line 2: needs a non-empty string "prompt"' in result.stderr
