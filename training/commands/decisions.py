"""`calibrate`, and `eval --decisions`: how good a checkpoint's decisions are, and the temperature that makes them mean
what they say.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from llada_core.checkpoint.decision_temperature import write_decision_temperature
from llada_core.checkpoint.load import Checkpoint
from llada_core.checkpoint.placement import Placement
from llada_core.decisions.labels import Labels
from llada_core.decisions.prompts import EncodedQuestion, encode_questions
from llada_core.decisions.reading import num_tokens, read
from llada_core.text.tokenizer import Tokenizer
from llada_core.threads import fastest_num_threads
from training.data.decisions import LabelledQuestion, read_decisions
from training.data.formats import ReadReport
from training.data.sources import find_sources
from training.errors import DataError, TrainingError
from training.evaluation.calibration import HIGHEST, LOWEST, fit_temperature
from training.evaluation.decisions import DecisionScores, ReadQuestion, score, score_by_kind
from training.files import require_writable
from training.options.fields import CalibrateOptions, DecisionOptions, EvalOptions
from training.run.report import progress_bar

Log = Callable[[str], None]

# Questions between two moves of the progress bar.
_AT_ONCE = 64


def run_decision_eval(options: EvalOptions, *, log: Log) -> None:
    """Print accuracy, Brier score, calibration error and NLL of labelled questions, by kind.

    Raises:
        DataError: other data is named too, no questions, questions that do not fit the model, or a checkpoint without a
            tokenizer.
    """
    if options.val_data_path:
        raise DataError("eval: give either val_data_path or decisions")
    checkpoint = Checkpoint.open(options.model_name_or_path)
    questions = _ask(checkpoint, options, most=options.eval_samples)
    scores = score_by_kind(questions, checkpoint.decision_temperature)
    if options.json_output:
        settings = {"temperature": checkpoint.decision_temperature, "order_averages": options.order_averages}
        log(json.dumps({kind: asdict(each) for kind, each in scores.items()} | settings))
        return
    log(f"decision temperature {checkpoint.decision_temperature:g}, order averages {options.order_averages}")
    _print(scores, log, name="type")


def run_calibrate(options: CalibrateOptions, *, log: Log) -> None:
    """Fit the decision temperature on labelled questions and write it into the checkpoint's generation_config.json.

    Raises:
        TrainingError: the model is not a folder that can be written.
        DataError: as for `run_decision_eval`.
    """
    folder = Path(options.model_name_or_path)
    if not folder.is_dir():
        raise TrainingError(f"--model-name-or-path {folder}: must be a folder; its generation_config.json is written")
    require_writable(folder, option="--model-name-or-path")
    checkpoint = Checkpoint.open(folder)
    questions = _ask(checkpoint, options)
    before, temperature = checkpoint.decision_temperature, fit_temperature(questions)
    _print({f"{each:g}": score(questions, each) for each in (before, temperature)}, log, name="temperature")
    if temperature in (LOWEST, HIGHEST):
        log(f"{temperature:g} is the end of the range tried: these questions do not determine the temperature")
    write_decision_temperature(folder, temperature)
    log(f"decision temperature {temperature:g} (it was {before:g}) written to {folder / 'generation_config.json'}")


def _ask(checkpoint: Checkpoint, options: DecisionOptions, *, most: int | None = None) -> list[ReadQuestion]:
    """Read the questions of the files and ask the model, at most `most` of them, spread over all."""
    if checkpoint.tokenizer is None:
        raise DataError(f"{checkpoint.folder}: no tokenizer.json in this checkpoint")
    labelled = _read(options)
    number = len(labelled) if most is None else min(most, len(labelled))
    labelled = [labelled[index * len(labelled) // number] for index in range(number)]
    labels = Labels.of(checkpoint.tokenizer)
    encoded = _encode(labelled, checkpoint.tokenizer, labels, longest=checkpoint.config.shape.max_sequence_length)
    model = checkpoint.load_model(Placement.of(options.device, "auto"))
    torch.set_num_threads(fastest_num_threads(model))
    logits = []
    with progress_bar("asking", total=number) as advance:
        for first in range(0, number, _AT_ONCE):
            part = encoded[first : first + _AT_ONCE]
            logits += read(model, labels, part, order_averages=options.order_averages)
            advance(first + len(part))
    return [
        ReadQuestion(question.kind, logits_OK, question.answer)
        for question, logits_OK in zip(labelled, logits, strict=True)
    ]


def _read(options: DecisionOptions) -> list[LabelledQuestion]:
    report = ReadReport(options.max_bad_lines)
    sources = find_sources(options.decisions, options.column_names)
    labelled = [question for source in sources for question in read_decisions(source.records(), report)]
    if not labelled:
        raise DataError("no questions: the data holds none")
    return labelled


def _encode(
    labelled: Sequence[LabelledQuestion], tokenizer: Tokenizer, labels: Labels, *, longest: int
) -> list[EncodedQuestion]:
    encoded = []
    for each in labelled:
        if len(each.question.options) > len(labels):
            raise DataError(
                f"{each.place}: has {len(each.question.options)} options; this model has {len(labels)} labels for them"
            )
        encoded += encode_questions(tokenizer, each.conversation, [each.question], labels)
        if num_tokens(encoded[-1]) > longest:
            raise DataError(f"{each.place}: has {num_tokens(encoded[-1])} tokens; the model takes at most {longest}")
    return encoded


def _print(scores: Mapping[str, DecisionScores], log: Log, *, name: str) -> None:
    log(f"{name:>11}  questions  accuracy   Brier     ECE     NLL")
    for key, each in scores.items():
        figures = "  ".join(f"{value:.4f}" for value in (each.brier, each.ece, each.nll))
        log(f"{key:>11}  {each.num_questions:>9,}  {each.accuracy:>8.1%}  {figures}")
