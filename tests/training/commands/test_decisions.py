"""`eval --decisions` and `calibrate`, with the demo model."""

import json
import shutil

import pytest
import torch

from llada_core import DEMO_FOLDER, load_model
from llada_core.checkpoint.load import Checkpoint
from llada_core.decisions.labels import Labels
from llada_core.decisions.prompts import encode_questions
from llada_core.decisions.reading import probabilities, read
from llada_core.text.tokenizer import Message
from tests.training.conftest import llada_train, succeed
from training.data.decisions import read_decisions
from training.data.files import Record
from training.data.formats import ReadReport


def rows_of(number):
    """Questions of every type, without answers."""
    for index in range(number):
        fields = {"instructions": f"What is it about, {index}?"}
        kinds = (
            {"type": "predicate", **fields},
            {"type": "choice", **fields, "choices": [{"value": "food"}, {"value": "staff"}, {"value": "room"}]},
            {"type": "score", **fields, "levels": [{"label": "low"}, {"label": "high"}]},
        )
        yield {"input": f"The soup was {index} degrees warm.", "question": kinds[index % 3], "answer": None}


def options_of(question):
    names = {"predicate": lambda: [True, False], "choice": lambda: [each["value"] for each in question["choices"]]}
    return names.get(question["type"], lambda: [each["label"] for each in question["levels"]])()


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def folder(tmp_path):
    """A copy of the demo model. It knows nothing about soups, but prefers some labels: that is all it takes here."""
    return shutil.copytree(DEMO_FOLDER, tmp_path / "model", ignore=shutil.ignore_patterns("README.md"))


def answered(rows, model, tokenizer, temperature):
    """The rows, each with an answer drawn from what a model says at a temperature."""
    generator, labels = torch.Generator().manual_seed(0), Labels.of(tokenizer)
    for row in rows:
        labelled = {**row, "answer": options_of(row["question"])[0]}
        (question,) = read_decisions([Record("", labelled)], ReadReport(0))
        encoded = encode_questions(tokenizer, [Message("user", row["input"])], [question.question], labels)
        (logits_OK,) = read(model, labels, encoded, order_averages=1)
        drawn = int(torch.multinomial(probabilities(logits_OK, temperature), 1, generator=generator))
        yield {**row, "answer": options_of(row["question"])[drawn]}


def test_calibrate_recovers_the_temperature_and_keeps_the_rest_of_the_folder(folder, tmp_path, demo_tokenizer):
    data = write(
        tmp_path / "rows.jsonl", answered(list(rows_of(240)), load_model(folder), demo_tokenizer, temperature=2.0)
    )
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    before = json.loads(files.pop("generation_config.json"))
    options = ["--decisions", data, "--order-averages", 1]
    printed = succeed("calibrate", "--model-name-or-path", folder, *options)
    after = json.loads((folder / "generation_config.json").read_text())
    assert after.pop("decision_temperature") == pytest.approx(2.0, rel=0.25)
    assert after == before
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.name in files} == files
    assert {file.name for file in folder.iterdir()} == {*files, "generation_config.json"}
    assert "(it was 1) written to" in printed
    temperature = Checkpoint.open(folder).decision_temperature
    assert f"\n{temperature:>11g}  " in printed

    scores = json.loads(succeed("eval", "--model-name-or-path", folder, *options, "--json"))
    assert scores["temperature"] == temperature
    assert [scores[kind]["num_questions"] for kind in ("predicate", "choice", "score", "all")] == [80, 80, 80, 240]
    assert (
        scores["all"]["nll"]
        < json.loads(succeed("eval", "--model-name-or-path", DEMO_FOLDER, "--decisions", data, "--json"))["all"]["nll"]
    )


def test_eval_prints_a_line_for_each_type(tmp_path):
    rows = [{**row, "answer": options_of(row["question"])[0]} for row in rows_of(6)]
    data = write(tmp_path / "rows.jsonl", rows)
    options = ["eval", "--model-name-or-path", DEMO_FOLDER, "--decisions", data, "--order-averages", 1]
    printed = succeed(*options)
    assert "decision temperature 1, order averages 1" in printed
    assert [line.split()[:2] for line in printed.splitlines()[2:]] == [
        ["choice", "2"],
        ["predicate", "2"],
        ["score", "2"],
        ["all", "6"],
    ]
    assert succeed(*options) == printed
    assert succeed(*options, "--eval-samples", 3).splitlines()[-1].split()[:2] == ["all", "3"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": "maybe"}, "rows.jsonl, line 1: answer: is 'maybe'"),
        ({"input": "word " * 600}, "tokens; the model takes at most 512"),
        (
            {
                "question": {
                    "type": "score",
                    "instructions": "x",
                    "levels": [{"label": f"{level}"} for level in range(60)],
                },
                "answer": "7",
            },
            "has 60 options; this model has 54 labels",
        ),
    ],
    ids=["answer", "long", "options"],
)
def test_a_row_that_cannot_be_asked_is_named(folder, tmp_path, row, message):
    good = {"input": "x", "question": {"type": "predicate", "instructions": "y"}, "answer": True}
    data = write(tmp_path / "rows.jsonl", [{**good, **row}])
    for command in ("eval", "calibrate"):
        assert message in llada_train(command, "--model-name-or-path", folder, "--decisions", data).stderr
    assert "decision_temperature" not in (folder / "generation_config.json").read_text()


def test_what_is_missing_or_too_much_is_named(folder, tmp_path):
    data = write(tmp_path / "rows.jsonl", [])
    model = ["--model-name-or-path", folder]
    assert "no questions" in llada_train("eval", *model, "--decisions", data).stderr
    assert "give either val_data_path or decisions" in llada_train("eval", *model).stderr
    both = ["--decisions", data, "--val-data-path", data]
    assert "give either val_data_path or decisions" in llada_train("eval", *model, *both).stderr
    assert "decisions: missing" in llada_train("calibrate", *model).stderr
    assert "must be a folder" in llada_train("calibrate", "--model-name-or-path", "a/b", "--decisions", data).stderr


def test_options_come_from_the_sections_of_a_config_file(folder, tmp_path):
    rows = [{**row, "answer": options_of(row["question"])[0]} for row in rows_of(3)]
    data = write(tmp_path / "rows.jsonl", rows)
    config = tmp_path / "config.yaml"
    config.write_text(
        f"output_dir: {tmp_path}\nmodel: {{name_or_path: {folder}}}\nevaluation: {{val_data_path: [x.jsonl]}}\n"
        f"calibration: {{decisions: [{data}]}}\n"
    )
    assert "written to" in succeed("calibrate", "--config", config)
    # The command line's data stands in for the file's.
    assert "predicate" in succeed("eval", "--config", config, "--decisions", data)
