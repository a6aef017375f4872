"""LLaDA as a model of lm-evaluation-harness: `python -m training.evaluation.lm_eval --model llada --model_args …`.

The harness asks a model how likely an answer is, how likely a text is, and what it generates. A diffusion model has no
next-token probabilities to add up: likelihoods are Monte-Carlo estimates (LLaDA, `eval_llada.py`; arXiv:2502.09992,
equation 6), and text comes from the reverse process. The core does both; this module converts text to ids, and the
harness's settings to the core's. It is also the entry point to the harness's command line, since the harness knows
only models that have been imported.
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
from llada_core.sampling.params import EXACT
from llada_core.text.special_tokens import BOS_TOKEN, END_HEADER_TOKEN, EOT_TOKEN, START_HEADER_TOKEN

T = TypeVar("T")

logger = logging.getLogger("lm_eval.llada")  # a child of `lm_eval`, whose handlers print it


@dataclass(frozen=True, slots=True)
class _Generation:
    """A request of `generate_until` in the core's terms."""

    prompt: list[int]
    params: GenerationParams
    until: tuple[str, ...]


@register_model("llada")
class LLaDALM(LM):
    """A LLaDA checkpoint as a model of the harness. Results do not depend on the batch size."""

    # One parameter for each key of `--model_args`: the harness passes them as keyword arguments.
    @validate_call
    def __init__(  # noqa: PLR0913, the harness passes `--model_args` one by one
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
            batch_size: texts generated at once. Likelihoods are batched over the draws of one answer.
            mc_num: draws of a likelihood; an answer of one token takes one draw, which is exact.
            cfg_scale, seed: used for likelihoods and generation; see `GenerationParams` for these and the others.

        Raises:
            ValueError: an unknown argument, a value that breaks its rule, or a checkpoint without a tokenizer.
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
        # Replaces an empty prompt.
        self._start_id = self._model.special_tokens.eos_id if bos_id is None else bos_id

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> "LLaDALM":
        """A model from `--model_args`, which take precedence over the device and batch size that the harness adds."""
        added = {name: value for name, value in (additional_config or {}).items() if value is not None}
        # cuda:0 is the harness's default; `auto` means the same if there is a GPU.
        if added.get("device") == "cuda:0":
            added["device"] = "auto"
        return cls(**(added | arg_dict))

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """For each (context, continuation), an estimate of log p in nats, and whether greedy decoding generates it."""
        pairs = [self._encode_pair(*request.args) for request in requests]
        scores = ((self._estimate(*pair), self._is_greedy(*pair)) for pair in pairs)
        return self._collect("loglikelihood", requests, scores)

    def loglikelihood_rolling(self, requests: Sequence[Instance]) -> list[float]:
        """Estimate log p of each text, in nats.

        A text longer than the model's positions is scored in windows. Each window sees the last token of the one before
        it; the last window sees as much of the preceding text as there is room for.
        """
        texts = [self._windows(*request.args) for request in requests]
        sums = (sum(self._estimate(*window) for window in windows) for windows in texts)
        return self._collect("loglikelihood_rolling", requests, sums)

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Generate a text for each (context, generation_kwargs), cut where the first of the `until` strings begins.

        A task's `max_gen_toks` takes precedence over `gen_length`, and its sampling settings over `temperature`.
        """
        copies: Counter[int] = Counter()
        generations = []
        for request in requests:
            # For several draws (`repeats`) the harness passes the same object several times.
            generations.append(self._generation(*request.args, seed=self._params.seed + copies[id(request)]))
            copies[id(request)] += 1
        return self._collect("generate_until", requests, self._generate(generations))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The template of `Tokenizer.encode_chat` as text; without a generation prompt the last turn stays open.

        Raises:
            ValueError: the tokenizer lacks the template's tokens (LLaDA-8B-Base's does).
        """
        if self._tokenizer.encode(_header("assistant")) != self._tokenizer.header("assistant"):
            raise ValueError(f"--apply_chat_template: the tokenizer of {self._name} has no chat template")
        turns = [_header(message["role"]) + message["content"].strip() for message in chat_history]
        if add_generation_prompt:
            turns.append(_header("assistant"))
        return BOS_TOKEN + EOT_TOKEN.join(turns)

    @property
    def tokenizer_name(self) -> str:
        """The name of the harness's cache of chat requests."""
        return self._name.replace("/", "__")

    def _collect(self, kind: str, requests: Sequence[Instance], answers: Iterable[T]) -> list[T]:
        """Collect the answers in the order of the requests, caching each one as it comes (`--use_cache`)."""
        bar = tqdm(answers, desc=f"Running {kind} requests", total=len(requests), disable=self.rank != 0)
        collected = []
        for request, answer in zip(requests, bar, strict=True):
            self.cache_hook.add_partial(kind, request.args, answer)
            collected.append(answer)
        return collected

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """The ids of both together, split where the context ends; its trailing spaces belong to the continuation."""
        prompt = context.rstrip()
        # The template's newlines after a header stay in the prompt: no reply was trained to begin with them.
        if prompt.endswith(END_HEADER_TOKEN):
            prompt = context
        ids = self._tokenizer.encode(context + continuation)
        border = len(self._tokenizer.encode(prompt))
        answer = ids[border:]
        if not answer:
            raise ValueError(f"continuation is {continuation!r}; it must have at least 1 token after its context")
        return self._fit(ids[:border], len(answer)), answer

    def _fit(self, prompt: list[int], length: int) -> list[int]:
        """As much of the prompt's end as leaves room for `length` tokens."""
        room = self._max_length - length
        if room < 1:
            raise ValueError(
                f"the answer has {length} tokens (for generation: `max_gen_toks` or `gen_length`); "
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
        """Whether the model generates `answer` if it commits its most confident token in each step: of the whole answer
        or, if it is block-causal, of the active block.
        """
        length, block_length = len(answer), self._model.shape.block_length
        one_by_one: dict[str, Any] = {"block_length": length}
        if block_length is not None:
            one_by_one = {"steps_per_block": block_length, "cache": EXACT}
        params = GenerationParams(gen_length=length, cfg_scale=self._params.cfg_scale, ignore_eos=True, **one_by_one)
        # Committed tokens never change, so `all` may stop at the first wrong one.
        return all(
            change.token_id == answer[change.position]
            for step in denoise(self._model, prompt, params)
            for change in step.changes
        )

    def _windows(self, text: str) -> list[tuple[list[int], list[int]]]:
        windows = get_rolling_token_windows(
            self._tokenizer.encode_plain(text),
            prefix_token=self._start_id,
            max_seq_len=self._max_length - 1,  # the harness does not count the context token
            context_len=1,
        )
        return [make_disjoint_window(window) for window in windows]

    def _generation(self, context: str, gen_kwargs: dict[str, Any], *, seed: int) -> _Generation:
        settings: dict[str, Any] = normalize_gen_kwargs(gen_kwargs, default_max_gen_toks=self._params.gen_length)
        until, gen_length = settings.pop("until"), settings.pop("max_gen_toks")
        del settings["do_sample"]  # `normalize_gen_kwargs` has set the temperature to 0 for false
        sampling = {name: settings.pop(name) for name in ("temperature", "top_k", "top_p") if name in settings}
        if settings:
            warning_once(
                logger, "generation_kwargs that LLaDA does not use are ignored: %s", ", ".join(sorted(settings))
            )
        params = replace(self._params, gen_length=gen_length, seed=seed, **sampling)
        prompt = self._fit(self._tokenizer.encode(context), gen_length)
        return _Generation(prompt, params, tuple(filter(None, until)))

    def _generate(self, generations: Sequence[_Generation]) -> Iterator[str]:
        for start in range(0, len(generations), self._batch_size):
            batch = generations[start : start + self._batch_size]
            prompts, params = [generation.prompt for generation in batch], [generation.params for generation in batch]
            for generation, result in zip(batch, generate(self._model, prompts, params), strict=True):
                text = self._tokenizer.decode(result.token_ids)
                yield text[: min((text.find(stop) for stop in generation.until if stop in text), default=None)]


def _header(role: str) -> str:
    return f"{START_HEADER_TOKEN}{role}{END_HEADER_TOKEN}\n\n"


if __name__ == "__main__":
    cli_evaluate()
