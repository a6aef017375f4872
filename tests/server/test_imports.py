"""The rooms of the server: which may import which."""

import ast
from pathlib import Path

import pytest

SERVER = Path(__file__).parents[2] / "server"
# Room → the rooms and modules that nothing in it imports.
FORBIDDEN = {
    "engine": {"http", "replies", "routes", "schemas", "service", "prompts", "canvases", "app"},
    "schemas": {"engine", "replies", "routes", "service", "prompts", "canvases", "app", "http.errors", "http.sse"},
    "http": {"replies", "routes", "schemas", "service", "prompts", "canvases", "app"},
    "replies": {"routes", "service", "prompts", "canvases", "app"},
    "routes": {"app", "engine"},
}


def imported_modules(file: Path) -> set[str]:
    """The modules of the server that a file imports, without the package's name."""
    modules = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "server":
            modules |= {f"{node.module}.{alias.name}".removeprefix("server.") for alias in node.names}
    return modules


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_imports_no_room_above_it(room):
    for file in (SERVER / room).rglob("*.py"):
        for module in imported_modules(file):
            assert not any(f"{module}.".startswith(f"{name}.") for name in FORBIDDEN[room]), (file.name, module)


def test_only_the_canvases_module_constructs_a_canvas():
    for file in SERVER.rglob("*.py"):
        text = file.read_text()
        assert file.name == "canvases.py" or ("Canvas.for_prompt" not in text and "Canvas.infill" not in text), file


def test_status_codes_live_in_the_http_room_only():
    for file in SERVER.rglob("*.py"):
        numbers = {node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)}
        codes = {number for number in numbers if isinstance(number, int) and 400 <= number < 600}
        assert file.parent.name == "http" or codes <= {512}, (file, codes)
