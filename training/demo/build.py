"""Write the data of the bundled demo model: ``python -m training.demo.build --output-dir build/demo-data``.

The mixture follows trials with six million parameters: breadth costs most, so it has few facts, many phrasings
and short sequences. Half of the pre-training data is stories, which teach the grammar.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from training.demo.arithmetic import sum_dialogues, sum_documents
from training.demo.facts import capital_dialogues, capital_documents, definition_dialogues, definition_documents
from training.demo.sampling import Dialogue, stream
from training.demo.sequences import sequence_documents
from training.demo.smalltalk import smalltalk_dialogues
from training.demo.splits import Splits, make_splits
from training.demo.stories import story_dialogues, story_documents

PRETRAIN_DOCUMENTS = {"stories": 60_000, "capitals": 21_000, "sums": 24_000, "definitions": 4_500, "sequences": 1_500}
SFT_DIALOGUES = {"capitals": 46_000, "sums": 150_000, "definitions": 36_000, "smalltalk": 24_000, "stories": 60_000}
NUM_VALIDATION_STORIES = 500


def main(
    output_dir: Annotated[Path, typer.Option(help="Folder for the four files; created if missing.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    scale: Annotated[float, typer.Option(help="Factor for all sizes; tests use a small one.", min=0.0)] = 1.0,
) -> None:
    """Write pretrain, sft, heldout and validation data, and print their sizes."""
    output_dir.mkdir(parents=True, exist_ok=True)
    for name, parts in build(seed, scale=scale).items():
        rows = [row for part in parts.values() for row in part]
        if name in ("pretrain", "sft"):
            stream(seed, f"order/{name}").shuffle(rows)
        with (output_dir / f"{name}.jsonl").open("w", encoding="ascii", newline="\n") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        _print_sizes(name, parts)


def build(seed: int, *, scale: float = 1.0) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """All rows, by file and then by part. The held-out split is fixed before the first training row is built."""
    splits = make_splits(seed)
    return {
        "pretrain": {
            part: _texts(texts, PRETRAIN_DOCUMENTS[part] * scale) for part, texts in _documents(splits, seed).items()
        },
        "sft": _dialogue_rows(splits, seed, "sft", SFT_DIALOGUES, scale),
        "heldout": _held_out_rows(splits),
        "validation": {"stories": _texts(story_documents(stream(seed, "validation")), NUM_VALIDATION_STORIES * scale)},
    }


def _texts(texts: Iterator[str], count: float) -> list[dict[str, Any]]:
    return [{"text": text} for text in islice(texts, round(count))]


def _documents(splits: Splits, seed: int) -> dict[str, Iterator[str]]:
    return {
        "stories": story_documents(stream(seed, "pretrain/stories")),
        "capitals": capital_documents(stream(seed, "pretrain/capitals")),
        "sums": sum_documents(splits.sums, stream(seed, "pretrain/sums")),
        "definitions": definition_documents(stream(seed, "pretrain/definitions")),
        "sequences": sequence_documents(stream(seed, "pretrain/sequences")),
    }


def _dialogue_rows(
    splits: Splits, seed: int, stage: str, sizes: dict[str, int], scale: float
) -> dict[str, list[dict[str, Any]]]:
    dialogues = _dialogues(splits, seed, stage)
    return {
        part: [{"messages": dialogue.messages()} for dialogue in islice(dialogues[part], round(size * scale))]
        for part, size in sizes.items()
    }


def _dialogues(splits: Splits, seed: int, stage: str) -> dict[str, Iterator[Dialogue]]:
    return {
        "capitals": capital_dialogues(stream(seed, f"{stage}/capitals")),
        "sums": sum_dialogues(splits.sums, stream(seed, f"{stage}/sums")),
        "definitions": definition_dialogues(stream(seed, f"{stage}/definitions")),
        "smalltalk": smalltalk_dialogues(stream(seed, f"{stage}/smalltalk")),
        "stories": story_dialogues(stream(seed, f"{stage}/stories")),
    }


def _held_out_rows(splits: Splits) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for q in splits.questions:
        row = {"task": q.task, "messages": Dialogue((q.question,)).messages(), "answer": q.answer}
        rows.setdefault(q.task, []).append(row)
    return rows


def _print_sizes(name: str, parts: dict[str, list[dict[str, Any]]]) -> None:
    words = {part: sum(_num_words(row) for row in rows) for part, rows in parts.items()}
    total = max(1, sum(words.values()))
    for part, rows in parts.items():
        typer.echo(f"{name:<10} {part:<12} {len(rows):>7} rows {words[part]:>9} words {words[part] / total:>5.0%}")


def _num_words(row: dict[str, Any]) -> int:
    texts: Iterable[str] = [row["text"]] if "text" in row else [message["content"] for message in row["messages"]]
    return sum(len(text.split()) for text in texts)


if __name__ == "__main__":
    typer.run(main)
