"""LLaDA as a model of lm-evaluation-harness: `python -m training.evaluation.lm_eval --model llada --model_args …`.

The harness asks a model how likely an answer is, how likely a text is, and what it writes. A diffusion model has no
next-token probabilities to add up: likelihoods are Monte-Carlo estimates (LLaDA, `eval_llada.py`; arXiv:2502.09992,
equation 6), and text comes from the reverse process. All of it is the core's; here words become ids, and the harness's
settings ours. The harness knows only models that someone imported, hence this entry to its command line.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from lm_eval.__main__ import cli_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window, warning_once
from pydantic import PositiveInt, validate_call
from tqdm import tqdm

from llada_core import GenerationParams, denoise, generate, load_model, load_tokenizer
from llada_core.diffusion.likelihood import log_likelihood
from llada_core.text.special_tokens import BOS_TOKEN, END_HEADER_TOKEN, EOT_TOKEN, START_HEADER_TOKEN

T = TypeVar("T")

logger = logging.getLogger("lm_eval.llada")  # Below `lm_eval`, whose handlers print it.


@dataclass(frozen=True, slots=True)
class _Writing:
    """A request of `generate_until` in the core's terms."""

    prompt: list[int]
    params: GenerationParams
    until: tuple[str, ...]


@register_model("llada")
class LLaDALM(LM):
    """A LLaDA checkpoint, as the harness sees a model. Results do not depend on the batch size."""

    @validate_call
    def __init__(
        self,
        pretrained: str,
        *,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: PositiveInt = 1,
        mc_num: PositiveInt = 128,
        cfg_scale: float = 0.0,
        gen_length: int = 128,
        steps: int | None = None,
        block_length: int | None = None,
        temperature: float = 0.0,
        remasking: str = "low_confidence",
        logits_eos_inf: bool = False,
        confidence_eos_eot_inf: bool = False,
        seed: int = 0,
    ) -> None:
        """
        Args:
            pretrained: a checkpoint's folder or Hugging Face id.
            device, dtype: see `load_model`.
            batch_size: texts written at once. Likelihoods are batched over the draws of one answer.
            mc_num: draws of a likelihood; an answer of one token takes one, which is exact.
            cfg_scale, seed: of likelihoods and of generation; these and the others: see `GenerationParams`.

        Raises:
            ValueError: an unknown argument or a value against the rules; a checkpoint without a tokenizer.
        """
        super().__init__()
        self._params = GenerationParams(
            gen_length=gen_length,
            steps=steps,
            block_length=block_length,
            remasking=remasking,
            temperature=temperature,
            cfg_scale=cfg_scale,
            seed=seed,
            logits_eos_inf=logits_eos_inf,
            confidence_eos_eot_inf=confidence_eos_eot_inf,
        )
        self._mc_num = mc_num
        self._batch_size = batch_size
        self._name = pretrained
        tokenizer = load_tokenizer(pretrained)
        if tokenizer is None:
            raise ValueError(f"pretrained is {pretrained!r}, which has no tokenizer.json; the harness speaks text")
        self._tokenizer = tokenizer
        self._model = load_model(pretrained, device=device, dtype=dtype)
        self._max_length = self._model.shape.max_sequence_length
        self._device = self._model.device
        bos_id = tokenizer.token_to_id(BOS_TOKEN)
        # What stands in for an empty prompt.
        self._start_id = self._model.special_tokens.eos_id if bos_id is None else bos_id

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> "LLaDALM":
        """A model from `--model_args`, which go before what the harness adds: its own device and batch size."""
        added = {name: value for name, value in (additional_config or {}).items() if value is not None}
        # The command line says cuda:0 where the user said nothing; `auto` is the same where there is one.
        if added.get("device") == "cuda:0":
            added["device"] = "auto"
        return cls(**(added | arg_dict))

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """For each (context, continuation) an estimate of log p in nats, and whether greedy decoding would write it."""
        pairs = [self._encode_pair(*request.args) for request in requests]
        scores = ((self._estimate(*pair), self._is_greedy(*pair)) for pair in pairs)
        return self._collect("loglikelihood", requests, scores)

    def loglikelihood_rolling(self, requests: Sequence[Instance]) -> list[float]:
        """An estimate of log p of each text in nats.

        Text beyond the model's length is worked off in windows: each sees the last token of the one before, the last
        one as much of the text before it as there is room for.
        """
        texts = [self._windows(*request.args) for request in requests]
        sums = (sum(self._estimate(*window) for window in windows) for windows in texts)
        return self._collect("loglikelihood_rolling", requests, sums)

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """A text for each (context, generation_kwargs), cut where the first of the `until` strings begins.

        `max_gen_toks` goes before `gen_length`, and what a task says of sampling before `temperature`.
        """
        copies: Counter[int] = Counter()
        writings = []
        for request in requests:
            # The harness repeats the very object where it wants several draws (`repeats`).
            writings.append(self._writing(*request.args, seed=self._params.seed + copies[id(request)]))
            copies[id(request)] += 1
        return self._collect("generate_until", requests, self._write(writings))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The template of `Tokenizer.encode_chat`, written out; without generation prompt the last turn stays open.

        Raises:
            ValueError: the tokenizer does not read the template's tokens (LLaDA-8B-Base's does not).
        """
        if self._tokenizer.encode(_header("assistant")) != self._tokenizer.header("assistant"):
            raise ValueError(f"--apply_chat_template: the tokenizer of {self._name} has no chat template")
        turns = [_header(message["role"]) + message["content"].strip() for message in chat_history]
        if add_generation_prompt:
            turns.append(_header("assistant"))
        return BOS_TOKEN + EOT_TOKEN.join(turns)

    @property
    def tokenizer_name(self) -> str:
        """What the harness names its cache of chat requests by."""
        return self._name.replace("/", "__")

    def _collect(self, kind: str, requests: Sequence[Instance], answers: Iterable[T]) -> list[T]:
        """The answers as they come, in the order of the requests; each is cached at once (`--use_cache`)."""
        bar = tqdm(answers, desc=f"Running {kind} requests", total=len(requests), disable=self.rank != 0)
        collected = []
        for request, answer in zip(requests, bar, strict=True):
            self.cache_hook.add_partial(kind, request.args, answer)
            collected.append(answer)
        return collected

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """The ids of both together, split where the context ends; spaces there count as the continuation's."""
        prompt = context.rstrip()
        # But not the template's newlines after a header: no reply has learnt to write these.
        if prompt.endswith(END_HEADER_TOKEN):
            prompt = context
        ids = self._tokenizer.encode(context + continuation)
        border = len(self._tokenizer.encode(prompt))
        answer = ids[border:]
        if not answer:
            raise ValueError(f"continuation is {continuation!r}; it must have at least 1 token after its context")
        return self._fit(ids[:border], len(answer)), answer

    def _fit(self, prompt: list[int], length: int) -> list[int]:
        """The end of the prompt that leaves room for `length` tokens."""
        room = self._max_length - length
        if room < 1:
            raise ValueError(
                f"the answer has {length} tokens (if it is to be written, that is `max_gen_toks` or `gen_length`); "
                f"it must be shorter than the model's max_sequence_length, {self._max_length}"
            )
        if len(prompt) > room:
            warning_once(logger, "contexts are cut from the left to fit in %d tokens", self._max_length)
        return prompt[-room:] or [self._start_id]

    def _estimate(self, prompt: list[int], answer: list[int]) -> float:
        return log_likelihood(
            self._model,
            prompt,
            answer,
            mask_id=self._model.special_tokens.mask_id,
            mc_num=self._mc_num if len(answer) > 1 else 1,
            cfg_scale=self._params.cfg_scale,
            seed=self._params.seed,
        ).value

    def _is_greedy(self, prompt: list[int], answer: list[int]) -> bool:
        """Whether `answer` is what the model writes if it commits its most confident token in each step."""
        length = len(answer)
        params = GenerationParams(
            gen_length=length, block_length=length, cfg_scale=self._params.cfg_scale, ignore_eos=True
        )
        # What is committed stays: the first wrong token decides, and no step is run after it.
        return all(
            change.token_id == answer[change.position]
            for step in denoise(self._model, prompt, params)
            for change in step.changes
        )

    def _windows(self, text: str) -> list[tuple[list[int], list[int]]]:
        windows = get_rolling_token_windows(
            self._tokenizer.encode_plain(text),
            prefix_token=self._start_id,
            max_seq_len=self._max_length - 1,  # the harness does not count the token that is only seen
            context_len=1,
        )
        return [make_disjoint_window(window) for window in windows]

    def _writing(self, context: str, gen_kwargs: dict[str, Any], *, seed: int) -> _Writing:
        settings: dict[str, Any] = normalize_gen_kwargs(gen_kwargs, default_max_gen_toks=self._params.gen_length)
        until, gen_length = settings.pop("until"), settings.pop("max_gen_toks")
        del settings["do_sample"]  # false has set the temperature to 0
        sampling = {name: settings.pop(name) for name in ("temperature", "top_k", "top_p") if name in settings}
        if settings:
            warning_once(
                logger, "generation_kwargs without a meaning here are ignored: %s", ", ".join(sorted(settings))
            )
        params = replace(self._params, gen_length=gen_length, seed=seed, **sampling)
        prompt = self._fit(self._tokenizer.encode(context), gen_length)
        return _Writing(prompt, params, tuple(filter(None, until)))

    def _write(self, writings: Sequence[_Writing]) -> Iterator[str]:
        for start in range(0, len(writings), self._batch_size):
            batch = writings[start : start + self._batch_size]
            prompts, params = [writing.prompt for writing in batch], [writing.params for writing in batch]
            for writing, result in zip(batch, generate(self._model, prompts, params), strict=True):
                text = self._tokenizer.decode(result.token_ids)
                yield text[: min((text.find(stop) for stop in writing.until if stop in text), default=None)]


def _header(role: str) -> str:
    return f"{START_HEADER_TOKEN}{role}{END_HEADER_TOKEN}\n\n"


if __name__ == "__main__":
    cli_evaluate()
