"""The clients that lm-evaluation-harness has for OpenAI servers, on a task that needs no download."""

from pathlib import Path

import lm_eval
import pytest
from lm_eval.tasks import TaskManager

TASKS = Path(__file__).parent.parent / "training" / "lm_eval_task"


@pytest.mark.parametrize(
    ("model", "route", "server", "is_chat"),
    [
        ("local-chat-completions", "chat/completions", "live_server", True),
        # The demo model is an instruct model: as completions its answers would be noise as well.
        ("local-completions", "completions", "babbler_url", False),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_task_of_texts_runs_against_the_server(offline, request, model, route, server, is_chat):
    results = lm_eval.simple_evaluate(
        model=model,
        model_args={
            "model": "llada-demo",
            "base_url": f"{request.getfixturevalue(server)}/v1/{route}",
            "tokenizer_backend": None,
            "tokenized_requests": False,
            "num_concurrent": 4,
        },
        tasks=["capitals_generate"],
        apply_chat_template=is_chat,
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        bootstrap_iters=0,
    )
    assert results["n-samples"]["capitals_generate"]["effective"] == 12
    if is_chat:
        assert results["results"]["capitals_generate"]["exact_match,none"] >= 0.9
