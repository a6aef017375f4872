"""Recordings made by hand: any tokens, with any confidence."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MASK, END = 2, 1


def run_of(texts: Sequence[str], *, confidences: Sequence[float] = (0.9,), num_ends: int = 2, **request: Any) -> Any:
    """A run that commits one of these tokens in each step, from left to right, and end tokens in the last."""
    length = len(texts) + num_ends
    steps = []
    for position, text in enumerate(texts):
        confidence = confidences[position % len(confidences)]
        changes = [change(position, position, 100 + position, text, confidence)]
        if position == len(texts) - 1:
            changes += [change(position, len(texts) + i, END, "", 0.99) for i in range(num_ends)]
        masked = 0 if position == len(texts) - 1 else length - position - 1
        steps.append(
            {"step": position, "block": 0, "changes": changes, "masked": masked, "elapsed_ms": 10.0 * (position + 1)}
        )
    usage = {
        "prompt_tokens": 4,
        "completion_tokens": len(texts),
        "total_tokens": 4 + len(texts),
        "denoising_steps": len(texts),
        "forward_passes": len(texts),
    }
    ids = [100 + i for i in range(len(texts))] + [END] * num_ends
    start = {
        "id": "denoise-1",
        "model": "m",
        "created": 1,
        "prompt_tokens": 4,
        "gen_length": length,
        "block_length": length,
        "steps": len(texts),
        "mask_token_id": MASK,
        "special_tokens": {str(MASK): "<|mask|>", str(END): "<|end|>"},
        "token_ids": [MASK] * length,
        "generation_params": {"max_tokens": length},
    }
    done = {"text": "".join(texts), "finish_reason": "stop", "usage": usage, "token_ids": ids}
    return {"request": request or {"prompt": "Once"}, "start": start, "steps": steps, "done": done}


def change(step: int, position: int, token_id: int, text: str, confidence: float) -> dict[str, Any]:
    return {
        "op": "commit",
        "step": step,
        "position": position,
        "token_id": token_id,
        "text": text,
        "confidence": confidence,
    }


def content_of(*runs: Any) -> dict[str, Any]:
    return {"format": "llada-recording", "version": 1, "runs": list(runs)}


def save_runs(path: Path, *runs: Any) -> Path:
    path.write_text(json.dumps(content_of(*runs)))
    return path
