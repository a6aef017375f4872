"""The `tokenizer` command: a byte-level BPE tokenizer with LLaDA's special tokens, trained on text."""

import sys
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from llada_core.files import new_file
from llada_core.text.special_tokens import (
    BOS_TOKEN,
    END_HEADER_TOKEN,
    EOS_TOKEN,
    EOT_TOKEN,
    MASK_TOKEN,
    START_HEADER_TOKEN,
)
from training.data.formats import ReadReport, read_any_text
from training.data.sources import excerpts, find_sources
from training.errors import DataError, TrainingError
from training.files import require_writable
from training.options.fields import TokenizerOptions

SPECIAL_TOKENS = [BOS_TOKEN, EOS_TOKEN, MASK_TOKEN, START_HEADER_TOKEN, END_HEADER_TOKEN, EOT_TOKEN]

# GPT-4's word pattern, but with single digits: a model learns sums digit by digit.
_WORD_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def run_tokenizer(options: TokenizerOptions, *, log: Callable[[str], None], excerpt: int | None = None) -> None:
    """Train a tokenizer and write it into the output folder.

    Args:
        excerpt: about how many characters of the data are read; None for all of it.

    Raises:
        DataError: the data has no text.
        TrainingError: the folder has a tokenizer already, or cannot be written.
    """
    file = options.output_dir / "tokenizer.json"
    if file.exists():
        raise TrainingError(f"{file} exists; choose another --output-dir, or give a pipeline --resume")
    require_writable(options.output_dir)
    report = ReadReport(options.max_bad_lines)
    sources = find_sources(options.train_data_path, options.column_names)
    if excerpt is not None:
        sources = excerpts(sources, excerpt)
    texts = (text for source in sources for text in read_any_text(source.records(), report))
    first = next(texts, None)
    if first is None:
        raise DataError(f"{', '.join(source.name for source in sources)}: no text to train a tokenizer on")
    trained = train_tokenizer(chain([first], texts), vocab_size=options.vocab_size, output_dir=options.output_dir)
    if report.count:
        log(str(report))
    size = trained.get_vocab_size()
    why = (
        ""
        if size >= options.vocab_size
        else f" (not {options.vocab_size}: every word of the data is one token already)"
    )
    log(f"{size} tokens in {file}{why}")


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, output_dir: Path) -> Tokenizer:
    """Train on `texts` and write `tokenizer.json` into `output_dir`; every byte is in the vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=sys.stderr.isatty(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    output_dir.mkdir(parents=True, exist_ok=True)
    with new_file(output_dir / "tokenizer.json") as aside:
        tokenizer.save(str(aside))
    return tokenizer
