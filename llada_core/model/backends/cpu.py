"""Inference on a CPU: the same network, with its weights laid out once for oneDNN.

It computes the function of `Network`; only order and rounding differ. Norm weights and the attention scale are
multiplied into the weights that follow, keys and values share a matrix, as do gate and up, and rotary pairs lie side
by side, so that a rotation is one complex product. In float32 the logits agree to about 1e-5.

Shape suffixes besides those of `packed`: C complex rotary pairs of a head (D / 2), M width of the feed-forward, N
output features of a linear map or, as in `routing`, experts of a token, P places at experts, those of padding included.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from llada_core.model.backends.cpu_attention import attend
from llada_core.model.backends.host_memory import keep_freed_memory, return_freed_memory
from llada_core.model.clean_context import InferencePattern, inference_pattern
from llada_core.model.config import ModelConfig
from llada_core.model.description import Attention, Description, Experts, FeedForward
from llada_core.model.packed import PackedTokens, Rows
from llada_core.model.rotary import rotary_angles
from llada_core.model.routing import choose_experts
from llada_core.text.special_tokens import SpecialTokens

Quantization = Literal["none", "int8"]
QUANTIZATIONS: tuple[str, ...] = get_args(Quantization)
Linear = Callable[[Tensor], Tensor]
# (the role of a tensor, the depth of its block or None) → the tensor, in its stored dtype
ReadTensor = Callable[[str, int | None], Tensor]

# oneDNN chooses a weight layout for a number of rows; this number suits a whole canvas and a block alike.
_TYPICAL_ROWS = 64

# The number of rows in a matrix product is rounded up to a multiple of this. oneDNN compiles a kernel for each number
# it sees, half a millisecond and 0.4 MB apiece, and keeps a thousand: a mixed load would compile at every step.
_ROWS_MULTIPLE = 8

# The rows of a weight that are in float32 at once while it is loaded: 2 MB of LLaDA-8B's.
_LOADED_ROWS = 128

# The most rows, and the most bytes of a temporary tensor, that go through the linear maps of a block at once. More rows
# are no faster; from 32 MB on malloc maps fresh pages for every tensor, and faults them in at every step.
_MOST_ROWS = 512
_MOST_BYTES = 24 << 20

# Keeps a row of zeros from dividing by zero; too small to change any other row.
_TINY = 1e-30


class CPUMaskPredictor:
    """A mask predictor with packed weights; immutable, so any number of threads may call it.

    Attributes:
        dtype: the dtype of weights, hidden states, keys and values. Around quantised weights hidden states are
            float32, which costs less here than converting them at every quantisation.
    """

    device = torch.device("cpu")

    def __init__(
        self,
        config: ModelConfig,
        special_tokens: SpecialTokens,
        read: ReadTensor,
        *,
        dtype: torch.dtype,
        quantization: Quantization = "none",
    ) -> None:
        """Lay the weights out.

        Args:
            read: reads a tensor of the checkpoint; the tensor is not kept.
            quantization: `int8` quantises weights per output feature, and the inputs of every linear map per row.
        """
        keep_freed_memory()
        description = config.describe()
        self.shape = config.shape
        self.special_tokens = special_tokens
        self.dtype = dtype

        is_int8 = quantization == "int8"
        self._hidden_dtype = torch.float32 if is_int8 else dtype

        def linear(*weights: _Weight) -> Linear:
            num_features = sum(len(weight.stored_NE) for weight in weights)
            pieces = chain.from_iterable(weight.pieces() for weight in weights)
            product = Int8Linear(num_features, pieces) if is_int8 else packed_linear(num_features, pieces, dtype)
            if all(weight.bias_N is None for weight in weights):
                return product
            bias_N = torch.cat([weight.bias() for weight in weights]).to(self._hidden_dtype)
            return lambda x_TE: product(x_TE).add_(bias_N)

        # Read, pack and drop one tensor at a time, the largest first: the peak is little more than the packed weights.
        self._head = linear(_Weight(read(description.head_role, None), read("final_norm", None)))
        self._embedding_VE = read("embedding", None).to(dtype)
        self._blocks = []
        for depth in range(description.num_layers):
            self._blocks.append(_Block(description, depth, read, linear, (dtype, self._hidden_dtype)))
            return_freed_memory()
        self._eps = torch.tensor(description.norm_eps)
        attention = description.attention
        angles_LC = rotary_angles(description.max_sequence_length, attention.rotary.dim, attention.rotary.theta)
        # Pairs that are not rotated turn by no angle.
        angles_LC = F.pad(angles_LC, (0, (attention.head_dim - attention.rotary.dim) // 2))
        self._rotations_LC = torch.polar(torch.ones_like(angles_LC), angles_LC)

    def hidden_states(self, packed: PackedTokens, rows: Rows | None = None) -> Tensor:
        """Compute the hidden state, normed, that predicts the token of each row or position: [R, E] or [T, E]."""
        if rows is None:
            rows = Rows.every(packed)
        if self.shape.predicts_next:
            rows = rows.one_before(packed)
        packed = packed.padded(_ROWS_MULTIPLE)
        rows, kept_R = rows.padded(_ROWS_MULTIPLE)
        rotations_T1C = self._rotations_LC[packed.positions()].unsqueeze(1)
        plan = inference_pattern(packed)
        hidden_TE = F.embedding(packed.tokens_T, self._embedding_VE).to(self._hidden_dtype)
        for block in self._blocks[:-1]:
            hidden_TE = block(hidden_TE, rotations_T1C, plan)
        last_plan = inference_pattern(packed, rows)
        hidden_RE = self._blocks[-1](hidden_TE, rotations_T1C, last_plan, rows)
        return _normalize(hidden_RE[kept_R], self._eps)

    def head(self, hidden_RE: Tensor) -> Tensor:
        """Compute the logits [R, V] of normed hidden states."""
        num_rows = len(hidden_RE)
        return self._head(F.pad(hidden_RE, (0, 0, 0, -num_rows % _ROWS_MULTIPLE)))[:num_rows]


class _Block:
    """One transformer block. Norm weights are multiplied into the weights that follow them."""

    def __init__(
        self,
        description: Description,
        depth: int,
        read: ReadTensor,
        linear: Callable[..., Linear],
        dtypes: tuple[torch.dtype, torch.dtype],
    ) -> None:
        """Lay the weights out; `dtypes` are those of attention and of hidden states."""
        attention_dtype, hidden_dtype = dtypes
        attention = description.attention
        self._depth = depth
        self._kernel = partial(attend, dtype=attention_dtype)
        self._head_dim = attention.head_dim
        self._heads = [attention.num_heads, attention.num_key_value_heads, attention.num_key_value_heads]
        feed_forward = description.feed_forwards[depth]
        self._most_rows = _most_rows(_widest(feed_forward, description.width))
        self._eps = torch.tensor(description.norm_eps)

        def weight(role: str, norm_E: Tensor | None = None) -> _Weight:
            bias_N = read(f"{role}.bias", depth) if role in description.biased else None
            return _Weight(read(role, depth), norm_E, bias_N)

        norm_E, scale = read("attention_norm", depth), attention.head_dim**-0.5
        self._query_norm_HD: Tensor | None = None
        self._key_norm_KD: Tensor | None = None
        if attention.has_head_norms:
            query_norm_D, key_norm_D = (
                _pairs_side_by_side(read(role, depth).float(), attention) for role in ("query_norm", "key_norm")
            )
            # A norm would undo a scale of the query's weight.
            self._query_norm_HD = (query_norm_D * scale).to(hidden_dtype).expand(attention.num_heads, -1)
            self._key_norm_KD = key_norm_D.to(hidden_dtype).expand(attention.num_key_value_heads, -1)
            scale = 1.0
        if attention.is_fused:
            query, key, value = weight("query_key_value", norm_E).split(attention.widths)
        else:
            query, key, value = (weight(role, norm_E) for role in ("query", "key", "value"))
        query, key = replace(query, heads=attention, scale=scale), replace(key, heads=attention)
        if depth < description.num_layers - 1:
            self._query_key_value = linear(query, key, value)
        else:
            self._query, self._key_value = linear(query), linear(key, value)
        self._attention_out = linear(weight("attention_out"))
        norm_E = read("feed_forward_norm", depth)
        if isinstance(feed_forward, Experts):
            self._feed_forward: Linear = _Mixture(feed_forward, norm_E, weight, linear, lambda role: read(role, depth))
        else:
            self._feed_forward = _SwiGLU(linear, weight("gate", norm_E), weight("up", norm_E), weight("down"))

    def __call__(
        self, hidden_TE: Tensor, rotations_T1C: Tensor, plan: InferencePattern, rows: Rows | None = None
    ) -> Tensor:
        """Compute the block's output at all positions or at the rows; `hidden_TE` is overwritten."""
        if rows is None:
            q_QHD, k_TKD, v_TKD = self._in_pieces(self._project_all, hidden_TE, rotations_T1C)
        else:
            # Keys and values come from all positions; queries and everything after them are needed only at the rows.
            k_TKD, v_TKD = self._in_pieces(self._project_keys_and_values, hidden_TE, rotations_T1C)
            hidden_TE, rotations_T1C = hidden_TE[rows.index_R], rotations_T1C[rows.index_R]
            (q_QHD,) = self._in_pieces(self._project_queries, hidden_TE, rotations_T1C)
        attended_QHD = plan.attend(q_QHD, k_TKD, v_TKD, self._depth, kernel=self._kernel)
        pieces = zip(hidden_TE.split(self._most_rows), attended_QHD.flatten(-2).split(self._most_rows), strict=True)
        for hidden_QE, attended_QE in pieces:
            hidden_QE.add_(self._attention_out(attended_QE.to(hidden_QE.dtype)))
            hidden_QE.add_(self._feed_forward(_normalize(hidden_QE, self._eps)))
        return hidden_TE

    def _in_pieces(self, project: Callable[[Tensor, Tensor], tuple[Tensor, ...]], *inputs: Tensor) -> Sequence[Tensor]:
        """Project a bounded number of rows at a time."""
        pieces = [project(*piece) for piece in zip(*(x.split(self._most_rows) for x in inputs), strict=True)]
        return pieces[0] if len(pieces) == 1 else [torch.cat(parts) for parts in zip(*pieces, strict=True)]

    def _project_all(self, hidden_TE: Tensor, rotations_T1C: Tensor) -> tuple[Tensor, ...]:
        num_q, num_k, num_v = self._heads
        qkv_TND = self._query_key_value(_normalize(hidden_TE, self._eps)).unflatten(-1, (-1, self._head_dim))
        qk_TND, v_TKD = qkv_TND.split([num_q + num_k, num_v], dim=1)
        if self._query_norm_HD is not None and self._key_norm_KD is not None:
            qk_TND = _normalize(qk_TND, self._eps) * torch.cat((self._query_norm_HD, self._key_norm_KD))
        return *_rotate(qk_TND, rotations_T1C).split([num_q, num_k], dim=1), v_TKD

    def _project_keys_and_values(self, hidden_TE: Tensor, rotations_T1C: Tensor) -> tuple[Tensor, ...]:
        _, num_k, num_v = self._heads
        kv_TND = self._key_value(_normalize(hidden_TE, self._eps)).unflatten(-1, (-1, self._head_dim))
        k_TKD, v_TKD = kv_TND.split([num_k, num_v], dim=1)
        if self._key_norm_KD is not None:
            k_TKD = _normalize(k_TKD, self._eps) * self._key_norm_KD
        return _rotate(k_TKD, rotations_T1C), v_TKD

    def _project_queries(self, hidden_QE: Tensor, rotations_Q1C: Tensor) -> tuple[Tensor]:
        q_QHD = self._query(_normalize(hidden_QE, self._eps)).unflatten(-1, (-1, self._head_dim))
        if self._query_norm_HD is not None:
            q_QHD = _normalize(q_QHD, self._eps) * self._query_norm_HD
        return (_rotate(q_QHD, rotations_Q1C),)


class _SwiGLU:
    """A gated feed-forward, of which gate and up share a matrix."""

    def __init__(self, linear: Callable[..., Linear], gate: "_Weight", up: "_Weight", down: "_Weight") -> None:
        self._gate_up, self._down = linear(gate, up), linear(down)

    def __call__(self, x_TE: Tensor) -> Tensor:
        gate_TM, up_TM = self._gate_up(x_TE).chunk(2, dim=-1)
        return self._down(F.silu(gate_TM).mul_(up_TM))


class _Mixture:
    """A mixture of experts: tokens are sorted by expert, and each expert that has tokens computes them at once.

    Experts are chosen in float32 whatever the dtype: rounding would choose others.
    """

    def __init__(
        self,
        experts: Experts,
        norm_E: Tensor,
        weight: Callable[..., "_Weight"],
        linear: Callable[..., Linear],
        read: Callable[[str], Tensor],
    ) -> None:
        def swiglu(gate: str, up: str, down: str) -> _SwiGLU:
            return _SwiGLU(linear, weight(gate, norm_E), weight(up, norm_E), weight(down))

        self._sizes = experts
        self._router_XE = read("router").float() * norm_E.float()
        self._bias_X = read("mixture.expert_bias").float() if experts.has_bias else None
        self._experts = [
            swiglu(f"expert_gate.{number}", f"expert_up.{number}", f"expert_down.{number}")
            for number in range(experts.num_experts)
        ]
        has_shared = experts.shared_width is not None
        self._shared = swiglu("shared_gate", "shared_up", "shared_down") if has_shared else None

    def __call__(self, x_TE: Tensor) -> Tensor:
        logits_TX = F.linear(x_TE.float(), self._router_XE)
        weights_TN, experts_TN = choose_experts(logits_TX, self._sizes, self._bias_X)
        rows_P, places_TN, sizes = _sorted_by_expert(experts_TN, self._sizes.num_experts)
        # `index_select` and the bag are several times faster here than indexing and `index_add_`.
        pieces = enumerate(x_TE.index_select(0, rows_P).split(sizes))
        outputs_PE = torch.cat([self._experts[expert](piece_QE) for expert, piece_QE in pieces if len(piece_QE)])
        output_TE = F.embedding_bag(places_TN, outputs_PE, per_sample_weights=weights_TN.to(x_TE.dtype), mode="sum")
        return output_TE if self._shared is None else output_TE.add_(self._shared(x_TE))


def _sorted_by_expert(experts_TN: Tensor, num_experts: int) -> tuple[Tensor, Tensor, list[int]]:
    """Place the tokens expert by expert, each expert's padded to a multiple of rows that its products have.

    Returns:
        The token at each place [P], 0 at padding; the places of each token's experts [T, N]; and how many places each
        expert has.
    """
    experts = experts_TN.flatten().numpy()
    counts = np.bincount(experts, minlength=num_experts)
    sizes = counts + -counts % _ROWS_MULTIPLE
    order = experts.argsort(kind="stable")
    padding_before = (np.cumsum(sizes) - sizes) - (np.cumsum(counts) - counts)
    places = np.arange(len(order)) + np.repeat(padding_before, counts)
    rows_P = np.zeros(sizes.sum(), dtype=np.int64)
    rows_P[places] = order // experts_TN.shape[1]
    places_TN = np.empty_like(order)
    places_TN[order] = places
    return torch.from_numpy(rows_P), torch.from_numpy(places_TN).view_as(experts_TN), sizes.tolist()


@dataclass(frozen=True, slots=True)
class _Weight:
    """A weight of the checkpoint, with what is multiplied into it.

    Attributes:
        stored_NE: as it is stored.
        norm_E: the weight of the norm before it, so that W x = stored (norm · x).
        bias_N: added to the product.
        heads: the heads that it projects to, whose rotary pairs are to lie side by side.
    """

    stored_NE: Tensor
    norm_E: Tensor | None = None
    bias_N: Tensor | None = None
    heads: Attention | None = None
    scale: float = 1.0

    def split(self, sizes: Sequence[int]) -> "list[_Weight]":
        """Return the weights of so many features each."""
        biases = [None] * len(sizes) if self.bias_N is None else self.bias_N.split(list(sizes))
        parts = zip(self.stored_NE.split(list(sizes)), biases, strict=True)
        return [replace(self, stored_NE=stored_NE, bias_N=bias_N) for stored_NE, bias_N in parts]

    def pieces(self) -> Iterator[Tensor]:
        """Yield its rows in float32, so that low precision rounds once; only a piece at a time is in memory."""
        # Whole heads.
        head_dim = 1 if self.heads is None else self.heads.head_dim
        size = max(_LOADED_ROWS // head_dim, 1) * head_dim
        for stored_RE in self.stored_NE.split(size):
            rows_RE = stored_RE.to(torch.float32, copy=True)
            if self.norm_E is not None:
                rows_RE *= self.norm_E.float()
            yield rows_RE if self.heads is None else _pairs_side_by_side(rows_RE, self.heads) * self.scale

    def bias(self) -> Tensor:
        """Return the bias of its features in float32, zeros if it has none."""
        if self.bias_N is None:
            return torch.zeros(len(self.stored_NE))
        bias_N = self.bias_N.float()
        return bias_N if self.heads is None else _pairs_side_by_side(bias_N, self.heads) * self.scale


class Int8Linear:
    """A linear map in int8: weights are quantised per output feature at load, inputs per row at every call.

    Each row has its own scale, so that its result never depends on its neighbours. Inputs are float32.
    """

    def __init__(self, num_features: int, pieces: Iterable[Tensor]) -> None:
        """Quantise the weight.

        Args:
            pieces: its rows in float32, a bounded number at a time; overwritten.
        """
        self._levels = _input_levels()
        largest_N = torch.empty(num_features)

        def quantized() -> Iterator[Tensor]:
            start = 0
            for weight_RE in pieces:
                largest_R = torch.maximum(weight_RE.amax(dim=1), -weight_RE.amin(dim=1)).add_(_TINY)
                yield weight_RE.mul_((127 / largest_R).unsqueeze(1)).round_()
                largest_N[start : start + len(largest_R)] = largest_R
                start += len(largest_R)

        quantized_NE = _assembled(num_features, quantized(), torch.int8)
        # Becomes the scale of a product once multiplied by the row's largest input.
        self._scale_N = largest_N / (127 * self._levels)
        self._weight = torch.ops.onednn.qlinear_prepack(quantized_NE, [_TYPICAL_ROWS, quantized_NE.shape[1]])
        self._zero_point_N = torch.zeros(num_features, dtype=torch.int32)

    def __call__(self, x_TE: Tensor) -> Tensor:
        largest_T1 = x_TE.abs().amax(dim=1, keepdim=True).add_(_TINY)
        signed_TE = (x_TE * (self._levels / largest_T1)).round_().to(torch.int8)
        # Convert to signed, then shift to unsigned (the sum wraps): oneDNN has fast kernels only for unsigned inputs,
        # and torch a fast conversion only to signed ones.
        zero_point = self._levels + 1
        quantized_TE = signed_TE.view(torch.uint8).add_(zero_point)
        y_TN = _int8_product(quantized_TE, zero_point, self._weight, self._scale_N, self._zero_point_N)
        return y_TN.mul_(largest_T1)


def _int8_product(x_TE: Tensor, zero_point: int, weight: Tensor, scale_N: Tensor, zero_point_N: Tensor) -> Tensor:
    """Compute (x - zero point) · weight · scale, float32 [T, N]; x is unsigned, the weight packed."""
    return torch.ops.onednn.qlinear_pointwise(
        x_TE,
        1.0,
        zero_point,
        weight,
        scale_N,
        zero_point_N,
        None,  # bias
        1.0,  # output scale and zero point: without effect on a floating-point output
        0,
        torch.float32,
        "none",
        [],
        "",
    )


@cache
def _input_levels() -> int:
    """Return the number of quantisation levels on either side of zero: 127, or 63 where products could overflow.

    Without VNNI instructions oneDNN adds pairs of products in 16 bits, which saturate for 8-bit inputs but not for
    7-bit ones. A trial product decides: the environment may forbid oneDNN instructions that the processor has.
    """
    largest = torch.full((1, 64), 255, dtype=torch.uint8)
    weight = torch.ops.onednn.qlinear_prepack(torch.full((1, 64), 127, dtype=torch.int8), [1, 64])
    product = _int8_product(largest, 0, weight, torch.ones(1), torch.zeros(1, dtype=torch.int32))
    return 127 if product.item() == 64 * 255 * 127 else 63


def packed_linear(num_features: int, pieces: Iterable[Tensor], dtype: torch.dtype) -> Linear:
    """Return a linear map whose weight oneDNN has laid out for this CPU; torch's own if oneDNN lacks the dtype.

    Args:
        pieces: the rows of the weight, a bounded number at a time.
    """
    weight_NE = _assembled(num_features, pieces, dtype)
    if not _onednn_computes(dtype):
        return lambda x_TE: F.linear(x_TE, weight_NE)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight_NE, _TYPICAL_ROWS)
    return lambda x_TE: torch.ops.mkldnn._linear_pointwise(x_TE, packed, None, "none", [], "")


def _assembled(num_features: int, pieces: Iterable[Tensor], dtype: torch.dtype) -> Tensor:
    """Round the rows of a weight to `dtype` and lay them one after another: [N, E]."""
    iterator = iter(pieces)
    first_RE = next(iterator)
    weight_NE = torch.empty(num_features, first_RE.shape[1], dtype=dtype)
    start = 0
    for rows_RE in chain((first_RE,), iterator):
        weight_NE[start : start + len(rows_RE)] = rows_RE
        start += len(rows_RE)
    return weight_NE


def _widest(feed_forward: FeedForward | Experts, width: int) -> int:
    """Return the features of a feed-forward's widest temporary, by row: gate and up, or the inputs of all experts."""
    chosen = feed_forward.num_chosen * width if isinstance(feed_forward, Experts) else 0
    return max(2 * feed_forward.width, chosen)


def _most_rows(widest: int) -> int:
    """Return how many rows go through the linear maps at once, for the features of the widest temporary."""
    rows = _MOST_BYTES // (widest * torch.float32.itemsize)
    return min(max(rows // _ROWS_MULTIPLE, 1) * _ROWS_MULTIPLE, _MOST_ROWS)


def _onednn_computes(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if dtype == torch.float16:
        return torch.ops.mkldnn._is_mkldnn_fp16_supported()
    return dtype == torch.float32


def _pairs_side_by_side(features: Tensor, heads: Attention) -> Tensor:
    """Reorder the output features of each head: those that are rotated together lie side by side.

    i is rotated with i + n / 2 if n features are; the others stay. Products of queries and keys are the same.

    Args:
        features: a weight [N, E] or a bias [N].
    """
    pairs_2C = torch.arange(heads.rotary.dim).unflatten(0, (2, -1))
    order_D = torch.cat((pairs_2C.T.flatten(), torch.arange(heads.rotary.dim, heads.head_dim)))
    return features.unflatten(0, (-1, heads.head_dim))[:, order_D].flatten(0, 1)


def _normalize(x_TE: Tensor, eps: Tensor) -> Tensor:
    norm_T1 = torch.linalg.vector_norm(x_TE, dim=-1, keepdim=True, dtype=torch.float32)
    return x_TE * torch.addcmul(eps, norm_T1, norm_T1, value=1 / x_TE.shape[-1]).rsqrt_().to(x_TE.dtype)


def _rotate(x_TND: Tensor, rotations_T1C: Tensor) -> Tensor:
    """Rotate the pairs of queries or keys in float32; in place if they are float32 already."""
    pairs_TNC = torch.view_as_complex(x_TND.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs_TNC.mul_(rotations_T1C)).flatten(-2)
