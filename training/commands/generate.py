"""The `generate` command: answers prompts from the command line, or a file of them, resumable line by line."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from llada_core import GenerationParams, generate, load_model, load_tokenizer
from llada_core.checkpoint.folder import resolve_folder
from llada_core.model.interface import MaskPredictor
from llada_core.sampling.generate import GenerationResult
from llada_core.text.tokenizer import Message, Tokenizer
from llada_core.threads import fastest_num_threads
from training.data.formats import ReadReport, read_prompts
from training.data.sources import Source, find_sources
from training.errors import DataError
from training.files import require_writable
from training.options.fields import GenerateOptions
from training.run.report import progress_bar

Prompt = str | list[Message]


def run_generate(options: GenerateOptions, *, log: Callable[[str], None]) -> None:
    """Print the results, or append them to `--output`.

    Raises:
        DataError: options that contradict each other, a line without a prompt, or an output file of other prompts.
    """
    if bool(options.prompt) == (options.input is not None):
        raise DataError("generate: give either prompt or input")
    if (options.input is None) != (options.output is None):
        raise DataError("generate: input and output go together")
    if options.trajectory and not options.output:
        raise DataError("generate: trajectory is written into output; give that too")
    if options.output:
        require_writable(options.output.parent, option="--output")
    params = options.generation_params(seed=options.seed)
    tokenizer = load_tokenizer(options.model_name_or_path)
    raw_prompts = _file_prompts(options.input) if options.input else options.prompt
    prompts = [_as_chat(prompt) if options.is_instruct else prompt for prompt in raw_prompts]
    num_done, settings = 0, _settings(options, params)
    if options.output:
        num_done = _num_done(options.output, prompts, settings)
        log(f"{num_done:,} of {len(prompts):,} prompts are in {options.output} already")
    if tokenizer is None:
        raise DataError(f"{options.model_name_or_path}: no tokenizer.json in this checkpoint")
    model = load_model(options.model_name_or_path, device=options.device)
    torch.set_num_threads(fastest_num_threads(model))
    _require_room(prompts, tokenizer, params, model.shape.max_sequence_length)
    with progress_bar("generating", total=len(prompts)) as advance:
        advance(num_done)
        for first, results in _results(model, tokenizer, prompts, params, first=num_done, size=options.batch_size):
            _write(options.output, prompts, first, results, settings, log)
            advance(first + len(results))


def _as_chat(prompt: Prompt) -> Prompt:
    return [Message("user", prompt)] if isinstance(prompt, str) else prompt


def _results(
    model: MaskPredictor,
    tokenizer: Tokenizer,
    prompts: list[Prompt],
    params: GenerationParams,
    *,
    first: int,
    size: int,
) -> Iterator[tuple[int, list[GenerationResult]]]:
    for start in range(first, len(prompts), size):
        yield start, generate(model, prompts[start : start + size], params, tokenizer=tokenizer)


def _write(
    output: Path | None,
    prompts: list[Prompt],
    first: int,
    results: list[GenerationResult],
    settings: dict[str, Any],
    log: Callable[[str], None],
) -> None:
    if output is None:
        for result in results:
            log(result.text or "")
        return
    with output.open("a", encoding="utf-8") as file:
        for index, result in enumerate(results, start=first):
            record = {
                "index": index,
                "prompt": _plain(prompts[index]),
                "text": result.text,
                "finish_reason": result.finish_reason,
                "denoising_steps": result.denoising_steps,
                "options": settings,
            }
            if settings.get("trajectory"):
                record["trajectory"] = asdict(result.trajectory)
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def _file_prompts(file: Path) -> Sequence[Prompt]:
    sources = find_sources([str(file)])
    return [prompt for source in sources for prompt in read_prompts(source.records(), ReadReport(limit=0))]


def _num_done(output: Path, prompts: list[Prompt], settings: dict[str, Any]) -> int:
    """The number of results in the file; a last line that was cut short by a kill is removed from it."""
    if not output.exists():
        return 0
    content = output.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        output.write_bytes(whole)
    records = [record.value for record in Source(output.name, output).records()]
    for index, record in enumerate(records):
        expected = (index, _plain(prompts[index])) if index < len(prompts) else None
        if (record.get("index"), record.get("prompt")) != expected:
            raise DataError(f"{output}, line {index + 1}: is not the result of line {index + 1} of --input")
        if record.get("options") != settings:
            raise DataError(
                f"{output}, line {index + 1}: was made with {record.get('options')}, but the options are now "
                f"{settings}; choose another --output"
            )
    return len(records)


def _require_room(prompts: Sequence[Prompt], tokenizer: Tokenizer, params: GenerationParams, longest: int) -> None:
    for number, prompt in enumerate(prompts, start=1):
        length = len(tokenizer.encode(prompt) if isinstance(prompt, str) else tokenizer.encode_chat(prompt))
        if length + params.gen_length > longest:
            raise DataError(
                f"prompt {number} has {length} tokens; with gen_length ({params.gen_length}) it must be at most the "
                f"model's max_sequence_length, {longest}"
            )


def _plain(prompt: Prompt) -> object:
    if isinstance(prompt, str):
        return prompt
    return [{"role": message.role, "content": message.content} for message in prompt]


def _settings(options: GenerateOptions, params: GenerationParams) -> dict[str, Any]:
    """The settings that a result depends on, as JSON: model, template, and parameters other than the default."""
    default = GenerationParams()
    changed = {name: value for name, value in asdict(params).items() if value != getattr(default, name)}
    model = str(resolve_folder(options.model_name_or_path).resolve())
    recorded = {"trajectory": True} if options.trajectory else {}
    settings = {"model": model, "is_instruct": options.is_instruct, **recorded, **changed}
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=sorted))
    return plain
