"""The mask predictor. `LLaDAModelLM` is in `model.llada`: it takes transformers' classes, two seconds to import."""

from llada_core.model.kv_cache import KVCache
from llada_core.model.packed import PackedTokens, Rows
from llada_core.model.predictor import MaskPredictor

__all__ = ["KVCache", "MaskPredictor", "PackedTokens", "Rows"]
