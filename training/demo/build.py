"""Write the data of the bundled demo model: ``python -m training.demo.build --output-dir build/demo-data``.

The mixture follows trials with six million parameters: breadth costs most, so it has short facts, many phrasings
and short sequences. What people try first, as sums of one-digit numbers, has a share of its own, and a good part are
questions that the model can't answer.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import count, islice
from pathlib import Path
from random import Random
from typing import Annotated, Any

import typer

from training.data.formats import FilledGap
from training.demo.arithmetic import arithmetic_dialogues, arithmetic_documents
from training.demo.copying import beginning_dialogues, repeat_dialogues
from training.demo.decisions import decision_dialogues, held_out_decisions
from training.demo.facts import capital_dialogues, capital_documents, definition_dialogues, definition_documents
from training.demo.infilling import filled_gaps
from training.demo.sampling import Dialogue, stream
from training.demo.sequences import sequence_dialogues, sequence_documents
from training.demo.smalltalk import chitchat_dialogues, smalltalk_dialogues
from training.demo.splits import Splits, make_splits
from training.demo.stories import opening_documents, story_dialogues, story_documents
from training.demo.tools import tool_dialogues
from training.demo.unknown import unknown_dialogues

PRETRAIN_DOCUMENTS = {
    "stories": 14_000,
    "openings": 4_000,
    "capitals": 12_000,
    "arithmetic": 3_000,
    "definitions": 12_000,
    "sequences": 1_500,
}
NUM_GAPS = 110_000
_GAP_WEIGHTS = {"stories": 0.5, "openings": 0.05, "capitals": 0.25, "definitions": 0.15, "sequences": 0.05}
SFT_DIALOGUES = {
    "capitals": 90_000,
    "arithmetic": 130_000,
    "definitions": 90_000,
    "unknown": 120_000,
    "smalltalk": 22_000,
    "chitchat": 5_000,
    "sequences": 24_000,
    "stories": 125_000,
    "repeat": 22_000,
    "beginnings": 15_000,
    "tools": 16_000,
}
NUM_LABELS = 220_000
_SHARE_WITH_HISTORY = 0.06
NUM_VALIDATION_STORIES = 500


def main(
    output_dir: Annotated[Path, typer.Option(help="Folder for the seven files; created if missing.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    scale: Annotated[float, typer.Option(help="Factor for all sizes; tests use a small one.", min=0.0)] = 1.0,
) -> None:
    """Write pretrain, sft, labels, gaps, heldout, decisions and validation data, and print their sizes."""
    output_dir.mkdir(parents=True, exist_ok=True)
    for name, parts in build(seed, scale=scale).items():
        rows = [row for part in parts.values() for row in part]
        if name in ("pretrain", "sft", "gaps"):
            stream(seed, f"order/{name}").shuffle(rows)
        if name == "sft":
            _add_history(rows, stream(seed, "history"))
        with (output_dir / f"{name}.jsonl").open("w", encoding="ascii", newline="\n") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        _print_sizes(name, parts)


def build(seed: int, *, scale: float = 1.0) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """All rows, by file and then by part. The held-out split is fixed before the first training row is built."""
    splits = make_splits(seed)
    pretrain = {
        part: _texts(texts, PRETRAIN_DOCUMENTS[part] * scale)
        for part, texts in _documents(splits, seed, "pretrain").items()
    }
    sft = {
        part: [{"messages": dialogue.messages()} for dialogue in islice(dialogues, round(SFT_DIALOGUES[part] * scale))]
        for part, dialogues in dialogues_of(splits, seed, "sft").items()
    }
    gaps = [asdict(gap) for gap in islice(_gaps(splits, seed), round(NUM_GAPS * scale))]
    trained = {row["text"] for rows in pretrain.values() for row in rows} | {"".join(gap.values()) for gap in gaps}
    validation = (text for text in _validation_stories(splits, seed) if text not in trained)
    return {
        "pretrain": pretrain,
        "sft": sft,
        "labels": {"decisions": _labels(splits, seed, NUM_LABELS * scale)},
        "gaps": {"gaps": gaps},
        "heldout": _held_out_rows(splits),
        "decisions": {"decisions": [decision.row() for decision in held_out_decisions(stream(seed, "decisions"))]},
        "validation": {"stories": _texts(validation, NUM_VALIDATION_STORIES * scale)},
    }


def _texts(texts: Iterator[str], num_texts: float) -> list[dict[str, Any]]:
    return [{"text": text} for text in islice(texts, round(num_texts))]


def _validation_stories(splits: Splits, seed: int) -> Iterator[str]:
    return story_documents(splits.unknown, stream(seed, "validation"))


def _documents(splits: Splits, seed: int, use: str) -> dict[str, Iterator[str]]:
    return {
        "stories": story_documents(splits.unknown, stream(seed, f"{use}/stories")),
        "openings": opening_documents(splits.unknown, stream(seed, f"{use}/openings")),
        "capitals": capital_documents(stream(seed, f"{use}/capitals")),
        "arithmetic": arithmetic_documents(splits.exercises, stream(seed, f"{use}/arithmetic")),
        "definitions": definition_documents(stream(seed, f"{use}/definitions")),
        "sequences": sequence_documents(stream(seed, f"{use}/sequences")),
    }


def _gaps(splits: Splits, seed: int) -> Iterator[FilledGap]:
    """Gaps in documents of all kinds but exercises."""
    rng = stream(seed, "gaps")
    documents = _documents(splits, seed, "gaps")
    parts, weights = list(_GAP_WEIGHTS), list(_GAP_WEIGHTS.values())
    return filled_gaps((next(documents[rng.choices(parts, weights)[0]]) for _ in count()), rng)


def dialogues_of(splits: Splits, seed: int, use: str) -> dict[str, Iterator[Dialogue]]:
    """Endless dialogues of every part; those of another use are other draws."""
    return {
        "capitals": capital_dialogues(splits.follow_ups, stream(seed, f"{use}/capitals")),
        "arithmetic": arithmetic_dialogues(splits.exercises, stream(seed, f"{use}/arithmetic")),
        "definitions": definition_dialogues(stream(seed, f"{use}/definitions")),
        "unknown": unknown_dialogues(splits.unknown, stream(seed, f"{use}/unknown")),
        "smalltalk": smalltalk_dialogues(stream(seed, f"{use}/smalltalk")),
        "chitchat": chitchat_dialogues(stream(seed, f"{use}/chitchat")),
        "sequences": sequence_dialogues(stream(seed, f"{use}/sequences")),
        "stories": story_dialogues(splits.unknown, stream(seed, f"{use}/stories")),
        "repeat": repeat_dialogues(splits.unknown, stream(seed, f"{use}/repeat")),
        "beginnings": beginning_dialogues(splits.unknown, stream(seed, f"{use}/beginnings")),
        "tools": tool_dialogues(splits.exercises, stream(seed, f"{use}/tools")),
    }


def _labels(splits: Splits, seed: int, num_rows: float) -> list[dict[str, Any]]:
    """Questions answered with a label, in a file of their own: they are trained alone before they join the rest."""
    dialogues = decision_dialogues(splits.exercises, splits.unknown, stream(seed, "labels"))
    return [{"messages": dialogue.messages()} for dialogue in islice(dialogues, round(num_rows))]


def _add_history(rows: list[dict[str, Any]], rng: Random) -> None:
    """Let some dialogues go on from the short one before, so that a chat may change its subject."""
    for i in range(len(rows) - 1, 0, -1):
        turns = rows[i - 1]["messages"] + rows[i]["messages"]
        has_system = any(turn["role"] == "system" for turn in turns)
        if rng.random() < _SHARE_WITH_HISTORY and _num_words(rows[i - 1]) < 30 and not has_system:
            rows[i] = {"messages": turns}


def _held_out_rows(splits: Splits) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for q in splits.questions:
        row = {"task": q.task, "messages": Dialogue(q.turns, q.system).messages(), "answer": q.answer}
        rows.setdefault(q.task, []).append(row)
    return rows


def _print_sizes(name: str, parts: dict[str, list[dict[str, Any]]]) -> None:
    words = {part: sum(_num_words(row) for row in rows) for part, rows in parts.items()}
    total = max(1, sum(words.values()))
    for part, rows in parts.items():
        typer.echo(f"{name:<10} {part:<12} {len(rows):>7} rows {words[part]:>9} words {words[part] / total:>5.0%}")


def _num_words(row: dict[str, Any]) -> int:
    texts: Iterable[str] = (
        [turn["content"] for turn in row["messages"]] if "messages" in row else map(str, row.values())
    )
    return len(" ".join(texts).split())


if __name__ == "__main__":
    typer.run(main)
