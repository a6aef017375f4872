from llada_core.model.llada import LLaDAModelLM
from llada_core.model.packed import PackedTokens

__all__ = ["LLaDAModelLM", "PackedTokens"]
