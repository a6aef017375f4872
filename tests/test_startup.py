"""Commands import only what they need, since imports dominate cold starts."""

import subprocess
import sys


def imported_by(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_a_server_on_a_cpu_takes_neither_the_network_nor_the_compiler():
    found = imported_by("import server.app, llada_core.checkpoint.load")
    assert not found & {
        "llada_core.model.network",
        "transformers.modeling_utils",
        "torch._dynamo",
        "scipy",
        "matplotlib",
    }


def test_asking_for_help_does_not_wait_for_torch():
    assert "torch" not in imported_by("import server.cli")
