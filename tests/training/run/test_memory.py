"""The estimate against the allocations of real steps; for FSDP, of one rank of eight without communication."""

import resource
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import accumulate

import pytest
import torch
import torch.distributed as dist
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile
from torch.testing._internal.distributed.fake_pg import FakeStore

from llada_core.diffusion.loss import row_losses, token_normalizer
from llada_core.diffusion.noise import Corrupted
from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.model.architectures.llada.names import ADAPTABLE
from llada_core.model.architectures.sdar import SDARConfig
from llada_core.model.config import ModelConfig
from llada_core.model.network import Network
from llada_core.sampling.generate import finish
from llada_core.sampling.params import GenerationParams
from llada_core.sampling.prepare import Vocabulary, prepare_responses
from llada_core.text.special_tokens import SpecialTokens
from training.options.fields import LoraParams, SFTOptions
from training.run.fake_step import follow_step
from training.run.memory import MemoryEstimate, Strategy, count_parameters, estimate_memory
from training.run.quantized_base import BaseDtype, quantize_linears
from training.stages.base import Answering, Work

LLADA_8B = LLaDAConfig.from_dict(
    {
        "architectures": ["LLaDAModelLM"],
        "activation_type": "silu",
        "block_type": "llama",
        "d_model": 4096,
        "embedding_size": 126464,
        "eos_token_id": 126081,
        "layer_norm_type": "rms",
        "mask_token_id": 126336,
        "max_sequence_length": 4096,
        "mlp_hidden_size": 12288,
        "model_type": "llada",
        "n_heads": 32,
        "n_kv_heads": 32,
        "n_layers": 32,
        "pad_token_id": 126081,
        "rms_norm_eps": 1e-5,
        "rope": True,
        "rope_full_precision": True,
        "rope_theta": 500000.0,
        "vocab_size": 126464,
        "weight_tying": False,
    }
)
SMALL = LLaDAConfig(d_model=128, n_heads=4, n_layers=4, vocab_size=1000, mlp_hidden_size=384, max_sequence_length=128)
SDAR = SDARConfig(hidden_size=128, num_hidden_layers=4, vocab_size=1000, intermediate_size=384, head_dim=32)
ROWS, LENGTH, RANKS = 4, 128, 8
GB = 1e9


def options(
    *, bfloat16: bool = True, activation_checkpointing: bool, lora: LoraParams | None = None, **others: object
) -> SFTOptions:
    adapters = {} if lora is None else {"lora_r": lora.r, "lora_target_modules": list(lora.targets)}
    return SFTOptions(
        model_name_or_path="base",
        train_data_path=["data.jsonl"],
        output_dir="out",
        max_steps=1,
        dtype="bfloat16" if bfloat16 else "float32",
        activation_checkpointing=activation_checkpointing,
        **adapters,
        **others,
    )


@cache
def estimate_8b(*, strategy: Strategy, world_size: int, **choices) -> MemoryEstimate:
    chosen = options(**{"activation_checkpointing": True, **choices})
    return estimate_memory(LLADA_8B, chosen, rows=1, length=4096, strategy=strategy, world_size=world_size)


on_one_device = partial(estimate_8b, strategy="single", world_size=1)
over_eight = partial(estimate_8b, strategy="fsdp", world_size=8)


def lora_of_rank(rank: int, *, targets: tuple[str, ...] = ADAPTABLE) -> LoraParams:
    return LoraParams(rank, rank, targets)


class Denoising(nn.Module):
    """The loss with every position masked, as a module, since DDP and FSDP act on a module's forward."""

    def __init__(
        self,
        *,
        bfloat16: bool,
        activation_checkpointing: bool = False,
        lora: LoraParams | None = None,
        base_dtype: BaseDtype | None = None,
        config: ModelConfig = SMALL,
    ) -> None:
        super().__init__()
        self.model = Network(config).train()
        self.bfloat16 = bfloat16
        if lora is not None:
            self.model.to(torch.bfloat16 if bfloat16 else torch.float32)
            if base_dtype is not None:
                quantize_linears(self.model.blocks, base_dtype, device=torch.device("cpu"))
            targets = r".*\.blocks\.\d+\.(q_proj|k_proj|v_proj|attn_out|ff_proj|up_proj|ff_out)"
            inject_adapter_in_model(LoraConfig(r=lora.r, target_modules=targets), self.model)
        for weight in self.trained():
            weight.data = weight.data.float()
        if activation_checkpointing:
            self.model.recompute_blocks()

    def trained(self) -> list[nn.Parameter]:
        return [weight for weight in self.parameters() if weight.requires_grad]

    def forward(self, tokens_BL: Tensor) -> Tensor:
        rows = len(tokens_BL)
        corrupted = Corrupted(tokens_BL, torch.ones_like(tokens_BL, dtype=torch.bool), torch.ones(rows))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bfloat16):
            losses_B = row_losses(self.model, tokens_BL, corrupted)
            return (losses_B / token_normalizer(torch.full((rows,), LENGTH))).sum()


def step(module: nn.Module, rows: int = ROWS) -> None:
    module(torch.randint(SMALL.vocab_size, (rows, LENGTH))).backward()


def peak_of_a_later_step(module: nn.Module) -> int:
    """The peak of the second step: the first one, of a row, allocates what stays: gradients and the rotary table."""
    step(module, rows=1)
    return peak_of(lambda: step(module))


def peak_of(work: Callable[[], None]) -> int:
    """The most bytes that `work` has allocated at any moment."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(accumulate(sizes))


def beyond_states(estimate: MemoryEstimate) -> int:
    return estimate.total - estimate.weights - estimate.gradients - estimate.optimizer


@pytest.fixture
def eight_ranks() -> Iterator[None]:
    """One of eight processes, with a fake backend."""
    dist.init_process_group("fake", rank=0, world_size=RANKS, store=FakeStore())
    yield
    dist.destroy_process_group()


@pytest.fixture
def one_rank() -> Iterator[None]:
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    yield
    dist.destroy_process_group()


modes = pytest.mark.parametrize("activation_checkpointing", [False, True])
dtypes = pytest.mark.parametrize("bfloat16", [False, True])
adapters = pytest.mark.parametrize("lora", [None, lora_of_rank(8)])


@modes
@dtypes
@adapters
@pytest.mark.parametrize("parts", [1, 8])
def test_the_estimate_equals_the_allocations_of_a_real_step(
    bfloat16, activation_checkpointing, lora, parts, monkeypatch
):
    monkeypatch.setattr("llada_core.diffusion.loss._LOGITS_BYTES", 4 * SMALL.vocab_size * ROWS * LENGTH // parts)
    # The estimate is made for long samples, which go through the fused kernel.
    monkeypatch.setattr("llada_core.model.attention._LONGEST_PLAIN", 0)
    choices = {"bfloat16": bfloat16, "activation_checkpointing": activation_checkpointing, "lora": lora}
    estimated = estimate_memory(SMALL, options(**choices), rows=ROWS, length=LENGTH, strategy="single", world_size=1)
    allocated = peak_of_a_later_step(Denoising(**choices))
    # Where the head is not the peak, temporaries inside a CPU's kernels show.
    assert beyond_states(estimated) == pytest.approx(allocated, rel=0.01 if parts == 1 else 0.04)


@modes
@dtypes
def test_the_estimate_counts_the_clean_copies_of_a_block_causal_model(bfloat16, activation_checkpointing, monkeypatch):
    monkeypatch.setattr("llada_core.model.attention._LONGEST_PLAIN", 0)
    choices = {"bfloat16": bfloat16, "activation_checkpointing": activation_checkpointing}
    estimated = estimate_memory(SDAR, options(**choices), rows=ROWS, length=LENGTH, strategy="single", world_size=1)
    allocated = peak_of_a_later_step(Denoising(**choices, config=SDAR))
    assert beyond_states(estimated) == pytest.approx(allocated, rel=0.01)


def test_the_estimate_is_of_the_blocks_that_are_trained(monkeypatch):
    lengths = []
    monkeypatch.setattr(
        "training.run.memory.follow_step",
        lambda sketch, *args, **kwargs: (
            lengths.append(sketch.shape.block_length) or follow_step(sketch, *args, **kwargs)
        ),
    )
    for choices in ({}, {"block_length": 16}):
        chosen = options(activation_checkpointing=False, **choices)
        estimate_memory(SDAR, chosen, rows=1, length=32, strategy="single", world_size=1)
    assert lengths == [SDAR.block_size, 16]


@modes
@dtypes
@pytest.mark.parametrize("base_dtype", ["int8", "nf4"])
def test_the_estimate_equals_the_allocations_over_a_base_in_8_or_4_bits(
    bfloat16, activation_checkpointing, base_dtype, monkeypatch
):
    monkeypatch.setattr("llada_core.model.attention._LONGEST_PLAIN", 0)
    choices = {
        "bfloat16": bfloat16, "activation_checkpointing": activation_checkpointing, "lora": lora_of_rank(8),
        "base_dtype": base_dtype,
    }  # fmt: skip
    estimated = estimate_memory(SMALL, options(**choices), rows=ROWS, length=LENGTH, strategy="single", world_size=1)
    module = Denoising(**choices)
    allocated = peak_of_a_later_step(module)
    assert beyond_states(estimated) == pytest.approx(allocated, rel=0.04)
    frozen = sum(weight.nbytes for weight in module.parameters() if not weight.requires_grad)
    # Beside the codes there are scales.
    assert 1 < estimated.weights / (frozen + sum(weight.nbytes for weight in module.trained())) < 1.03


@modes
@adapters
def test_the_estimate_equals_the_allocations_of_fsdp(activation_checkpointing, lora, eight_ranks):
    choices = {"bfloat16": True, "activation_checkpointing": activation_checkpointing, "lora": lora}
    estimated = estimate_memory(SMALL, options(**choices), rows=ROWS, length=LENGTH, strategy="fsdp", world_size=RANKS)
    module = Denoising(**choices)
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    mesh = init_device_mesh("cpu", (RANKS,))
    for part in (*module.model.model.transformer["blocks"], module):
        fully_shard(part, mesh=mesh, mp_policy=policy)
    allocated = peak_of_a_later_step(module)
    # The estimate is higher by the two gathered blocks, which are freed when the head computes.
    assert 0.98 * allocated < beyond_states(estimated) < 1.1 * allocated


@dtypes
def test_the_estimate_equals_the_allocations_of_ddp_with_accumulation(bfloat16, one_rank):
    chosen = options(bfloat16=bfloat16, activation_checkpointing=False)
    estimated = estimate_memory(SMALL, chosen, rows=ROWS, length=LENGTH, strategy="ddp", world_size=2)
    module = Denoising(bfloat16=bfloat16)
    replicated = DistributedDataParallel(module, gradient_as_bucket_view=True)
    # The first step fills the buckets, the second reorders them.
    for _ in range(2):
        step(replicated)
    module.zero_grad(set_to_none=True)

    def accumulate_gradients() -> None:
        with replicated.no_sync():
            step(replicated)
        step(replicated)

    # The buckets exist already; the step adds the gradients a second time.
    assert beyond_states(estimated) == pytest.approx(peak_of(accumulate_gradients), rel=0.02)


def test_llada_8b_has_eight_billion_parameters_in_32_gigabytes():
    assert count_parameters(LLADA_8B) == (8_015_581_184, 8_015_581_184)
    assert on_one_device(bfloat16=False).weights / GB == pytest.approx(32.06, abs=0.01)


def test_the_counts_equal_those_of_the_trained_model():
    for lora in (None, lora_of_rank(8)):
        module = Denoising(bfloat16=False, lora=lora)
        total, trained = (sum(weight.numel() for weight in some) for some in (module.parameters(), module.trained()))
        assert count_parameters(SMALL, lora) == (total, trained)


def test_an_adapter_of_ff_out_leaves_the_head_alone():
    _, trained = count_parameters(LLADA_8B, lora_of_rank(16, targets=("ff_out",)))
    assert trained == 32 * 16 * (12288 + 4096)


def test_fsdp_divides_the_states_by_the_number_of_devices():
    whole, shard = on_one_device(), over_eight()
    for state in ("weights", "gradients", "optimizer"):
        assert getattr(shard, state) == getattr(whole, state) // 8


def test_llada_8b_fits_one_gpu_with_adapters_and_eight_without():
    assert on_one_device(lora=lora_of_rank(16)).total < 20 * GB
    assert over_eight().total < 80 * GB
    assert on_one_device().total > 80 * GB


def test_llada_8b_in_4_bits_fits_a_12_gigabyte_card_and_moments_in_8_bits_two_large_ones():
    assert on_one_device(lora=lora_of_rank(16), base_dtype="nf4").total < 9 * GB
    assert on_one_device(lora=lora_of_rank(16), base_dtype="int8").total < 13 * GB
    assert estimate_8b(strategy="fsdp", world_size=2, optimizer="adamw_8bit").total < 50 * GB
    assert over_eight(ema_decay=0.999).total - over_eight().total == 4 * 8_015_581_184 // 8


def test_muon_keeps_one_moment_of_the_matrices_in_the_blocks():
    per_block = 4 * LLADA_8B.d_model**2 + 3 * LLADA_8B.d_model * LLADA_8B.mlp_hidden_size
    assert over_eight().optimizer - over_eight(optimizer="muon").optimizer == 4 * LLADA_8B.n_layers * per_block // 8


def test_checkpointing_keeps_one_input_per_block():
    tokens, width = 4096, 4096
    full, checkpointed = on_one_device(activation_checkpointing=False), on_one_device()
    assert checkpointed.activations == pytest.approx(33 * tokens * width * 4, rel=0.01)
    assert full.activations > 10 * checkpointed.activations


def test_an_estimate_allocates_no_weights():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    chosen = options(activation_checkpointing=False)
    estimate_memory(LLADA_8B, chosen, rows=1, length=4096, strategy="single", world_size=1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB; the weights alone are 32 GB


def test_a_reference_is_a_copy_of_what_is_trained_and_under_fsdp_of_everything():
    def added(strategy, world_size, **choices):
        chosen = options(activation_checkpointing=True, **choices)
        shape = {"rows": ROWS, "length": LENGTH, "strategy": strategy, "world_size": world_size}
        alone, beside = (estimate_memory(SMALL, chosen, **shape, has_reference=flag) for flag in (False, True))
        assert alone.weights == beside.weights and beside.total - alone.total == beside.copies - alone.copies
        return beside.copies - alone.copies

    adapters = lora_of_rank(8)
    everything, trained = count_parameters(SMALL, adapters)
    full = everything - trained
    assert added("single", 1) == 4 * full
    assert added("ddp", 2, lora=adapters) == 4 * trained
    # Shards of all weights, and the root in the dtype of the computation.
    assert added("fsdp", 4, lora=adapters) > (4 * trained + 2 * full) / 4


@dtypes
@pytest.mark.parametrize("cache", ["none", "dual"])
def test_the_estimate_counts_the_answers_that_are_written_before_a_step(bfloat16, cache, monkeypatch):
    # As on a GPU, which draws all noise at once.
    monkeypatch.setattr("llada_core.sampling.propose._MAX_CPU_DRAWS", 1 << 30)
    monkeypatch.setattr("llada_core.sampling.sampler._MAX_CPU_LOGITS", 1 << 30)
    monkeypatch.setattr("llada_core.model.attention._LONGEST_PLAIN", 0)
    params = GenerationParams(gen_length=64, block_length=32, temperature=1.0, steps=2, cache=cache)
    chosen = options(bfloat16=bfloat16, activation_checkpointing=True)
    work = Work(answering=Answering(16, params))
    shape = {"rows": 1, "length": LENGTH, "strategy": "single", "world_size": 1, "work": work}
    estimated = estimate_memory(SMALL, chosen, **shape)
    model = Network(SMALL).eval()
    model.special_tokens = SpecialTokens(mask_id=999, eos_id=998, eot_id=None)
    vocabulary = Vocabulary.of(model)
    canvases = prepare_responses(list(range(64)), params, vocabulary, seeds=range(16))

    def write_answers() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            finish(model, canvases)

    model.rotary.at(torch.arange(LENGTH), longest=LENGTH)
    assert estimated.answers > 0
    written = estimated.total - estimated.weights - estimated.optimizer
    assert written == pytest.approx(peak_of(write_answers), rel=0.1)


def test_weights_and_caches_of_all_answers_are_what_sharded_training_lacks_room_for():
    chosen = options(activation_checkpointing=True)

    def with_cache(cache, num_canvases=32):
        params = GenerationParams(gen_length=256, temperature=1.0, cache=cache)
        work = Work(answering=Answering(num_canvases, params))
        return estimate_memory(
            LLADA_8B, chosen, rows=1, length=4096, strategy="fsdp", world_size=8, has_reference=True, work=work
        )

    # A cache of 4,096 positions takes 2.1 GB in bfloat16.
    assert with_cache("dual").total - with_cache("none").total == pytest.approx(32 * 2.15 * GB, rel=0.02)
    assert with_cache("dual").total - with_cache("dual", 8).total > 24 * 2.1 * GB
    # Policy and reference are whole on every device.
    assert with_cache("none", 1).total > 2 * 16 * GB
