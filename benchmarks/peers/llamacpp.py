"""llama.cpp as a peer: run by its own environment, which has `llama_cpp`, `gguf`, `safetensors` and numpy.

A checkpoint of LLaDA becomes GGUF as llama.cpp's own converter writes it, except for the tokenizer, since only ids are
sent; its own quantiser makes the other kinds. The library has LLaDA's network but no sampler for it, and computes the
logits of every position. It chooses flash attention itself.
"""

import ctypes
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import gguf  # type: ignore[import-not-found]
import llama_cpp  # type: ignore[import-not-found]
import numpy as np
from safetensors.numpy import load_file

from benchmarks.peers.answering import answer

_FILE_TYPES = {
    "F16": llama_cpp.LLAMA_FTYPE_MOSTLY_F16,
    "BF16": llama_cpp.LLAMA_FTYPE_MOSTLY_BF16,
    "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
}


def main(checkpoint: Path, scratch: Path) -> None:
    """Answer with the logits of a checkpoint's folder, whose weights are in float32."""
    llama_cpp.llama_backend_init()
    float32 = scratch / "F32.gguf"
    num_words, longest = write_gguf(checkpoint, float32)

    @cache
    def context(kind: str) -> Any:
        file = scratch / f"{kind}.gguf"
        if kind != "F32":
            quantize(float32, file, kind)
        model = llama_cpp.llama_model_load_from_file(bytes(file), llama_cpp.llama_model_default_params())
        params = llama_cpp.llama_context_default_params()
        # Attention to both sides takes the whole sequence in one batch.
        params.n_ctx = params.n_batch = params.n_ubatch = longest
        params.n_threads = params.n_threads_batch = 1
        return llama_cpp.llama_init_from_model(model, params)

    def forward(kind: str, token_ids: list[int]) -> np.ndarray:
        tokens_T = (llama_cpp.llama_token * len(token_ids))(*token_ids)
        if llama_cpp.llama_encode(context(kind), llama_cpp.llama_batch_get_one(tokens_T, len(token_ids))):
            raise RuntimeError(f"{kind}: llama_encode failed")
        logits = llama_cpp.llama_get_logits(context(kind))
        return np.ctypeslib.as_array(ctypes.cast(logits, ctypes.POINTER(ctypes.c_float)), (len(token_ids), num_words))

    answer(llama_cpp.__version__, forward)


def write_gguf(checkpoint: Path, file: Path) -> tuple[int, int]:
    """Write a checkpoint as GGUF in float32; returns the columns of its head and its longest sequence."""
    config = json.loads((checkpoint / "config.json").read_text())
    writer = gguf.GGUFWriter(file, "llada")
    writer.add_context_length(config["max_sequence_length"])
    writer.add_vocab_size(config["embedding_size"])
    writer.add_embedding_length(config["d_model"])
    writer.add_block_count(config["n_layers"])
    writer.add_feed_forward_length(config["mlp_hidden_size"])
    writer.add_head_count(config["n_heads"])
    writer.add_head_count_kv(config["n_kv_heads"])
    writer.add_rope_dimension_count(config["d_model"] // config["n_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_diffusion_shift_logits(False)
    writer.add_tokenizer_model("none")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLADA, config["n_layers"])
    num_heads = {"q_proj": config["n_heads"], "k_proj": config["n_kv_heads"]}
    for name, tensor in load_file(checkpoint / "model.safetensors").items():
        role = name.split(".")[-2]
        laid_out = paired(tensor, num_heads[role]) if role in num_heads else tensor
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), laid_out)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return config["embedding_size"], config["max_sequence_length"]


def paired(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Put the two rows of a head that turn together side by side, as llama.cpp's rotary embedding has them."""
    return weight.reshape(num_heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def quantize(float32: Path, file: Path, kind: str) -> None:
    """Write the weights in another kind, with llama.cpp's own choice for each tensor."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = _FILE_TYPES[kind]
    params.nthread = 1
    if llama_cpp.llama_model_quantize(bytes(float32), bytes(file), params):
        raise RuntimeError(f"{kind}: llama_model_quantize failed")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
