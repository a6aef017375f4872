"""A worker's side of the protocol: a line of JSON for each forward pass, answered with its CPU time.

Only the standard library and numpy, as every peer's environment has them.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def answer(version: str, forward: Callable[[str, list[int]], np.ndarray]) -> None:
    """Answer requests until the standard input ends.

    Args:
        forward: computes the logits, float32 [positions, words], of token ids with a kind of weights. A kind's first
            call may load it: that call is never timed.
    """
    # A library that prints must not write between the answers.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

        def send(message: dict[str, Any]) -> None:
            answers.write(json.dumps(message) + "\n")
            answers.flush()

        send({"version": version})
        for line in sys.stdin:
            request = json.loads(line)
            started = time.process_time()
            logits_TV = forward(request["kind"], request["token_ids"])
            cpu_seconds = time.process_time() - started
            if request["logits_file"] is not None:
                np.save(request["logits_file"], logits_TV)
            send({"cpu_s": cpu_seconds})
