"""How well a demo model answers questions that were held out: `python -m training.demo.evaluate MODEL FILE`."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from llada_core import GenerationParams, generate, load_model, load_tokenizer
from llada_core.tokenizer import Message


def main(
    model: Annotated[Path, typer.Argument(help="Checkpoint folder.")],
    heldout: Annotated[Path, typer.Argument(help="heldout.jsonl of the data build.")],
    limit: Annotated[int | None, typer.Option(help="Ask only so many questions of each task.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Generation length.")] = 32,
    show_wrong: Annotated[int, typer.Option(help="Wrong answers to print for each task.")] = 3,
) -> None:
    """Ask every held-out question greedily; an answer counts when it contains the expected words."""
    network, tokenizer = load_model(model), load_tokenizer(model)
    questions: dict[str, list[tuple[str, str]]] = {}
    for line in heldout.read_text().splitlines():
        record = json.loads(line)
        questions.setdefault(record["task"], []).append((record["messages"][-1]["content"], record["answer"]))
    correct, asked = Counter[str](), Counter[str]()
    for task, all_pairs in questions.items():
        # Every n-th question: the file is sorted, its head would be one phrasing.
        pairs = all_pairs[:: max(1, len(all_pairs) // limit)] if limit else all_pairs
        prompts = [[Message("user", question)] for question, _ in pairs]
        results = generate(network, prompts, GenerationParams(gen_length=max_tokens), tokenizer=tokenizer)
        wrong_shown = 0
        for (question, answer), result in zip(pairs, results, strict=True):
            asked[task] += 1
            is_correct = answer in (result.text or "")
            correct[task] += is_correct
            if not is_correct and wrong_shown < show_wrong:
                wrong_shown += 1
                typer.echo(f"  {task}: {question!r} → {result.text!r}, expected {answer!r}")
    for task in asked:
        typer.echo(f"{task:<12} {correct[task]:>4} of {asked[task]:>4}  {correct[task] / asked[task]:>6.1%}")


if __name__ == "__main__":
    typer.run(main)
