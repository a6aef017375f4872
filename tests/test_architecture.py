"""Rules of the architecture: imports between packages, imports the core must not have, and the size of classes."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from llada_core.model.registry import ARCHITECTURES

ROOT = Path(__file__).parent.parent
PACKAGES = ("llada_core", "server", "training", "clients")
FILES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for package in PACKAGES
    for file in (ROOT / package).rglob("*.py")
}

# Package → the packages it may import.
PACKAGES_ALLOWED = {
    "llada_core": {"llada_core"},
    "server": {"server", "llada_core", "clients"},
    "training": {"training", "llada_core"},
    "clients": {"clients"},
}

SERVER_MODULES = (
    "server.service",
    "server.prompts",
    "server.canvases",
    "server.constraints",
    "server.app",
    "server.cli",
)

# Folder or module → what it must never import, however it is spelled.
FORBIDDEN = {
    "llada_core.text": ("llada_core.model", "llada_core.checkpoint", "llada_core.diffusion", "llada_core.sampling"),
    "llada_core.model": ("llada_core.checkpoint", "llada_core.diffusion", "llada_core.sampling"),
    "llada_core.diffusion": ("llada_core.checkpoint", "llada_core.sampling"),
    "llada_core.checkpoint": ("llada_core.diffusion", "llada_core.sampling"),
    "server.engine": ("server.http", "server.replies", "server.routes", "server.schemas", *SERVER_MODULES),
    "server.schemas": ("server.engine", "server.replies", "server.routes", "server.http.errors", *SERVER_MODULES),
    "server.http": ("server.replies", "server.routes", "server.schemas", *SERVER_MODULES),
    "server.replies": ("server.routes", *SERVER_MODULES),
    "server.routes": ("server.app", "server.engine"),
    "training.data": (
        "training.run",
        "training.stages",
        "training.options",
        "training.commands",
        "training.evaluation",
    ),
    "training.options": ("training.run", "training.data", "training.commands", "training.stages"),
    "training.stages": ("training.run", "training.commands"),
    "training.run": ("training.commands",),
    "training.commands": ("training.cli",),
}


@cache
def imports_of(module: str) -> frozenset[str]:
    """Every module of this project that a module imports, at its top or within a function."""
    imported = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            named = {f"{node.module}.{alias.name}" for alias in node.names}
            imported |= {name if name in FILES else node.module for name in named}
    return frozenset(name for name in imported if name.split(".")[0] in PACKAGES)


def within(module: str, folder: str) -> bool:
    return module == folder or module.startswith(f"{folder}.")


@pytest.mark.parametrize("package", PACKAGES_ALLOWED)
def test_a_package_imports_only_the_packages_that_the_design_allows(package):
    for module in FILES:
        if within(module, package):
            assert {name.split(".")[0] for name in imports_of(module)} <= PACKAGES_ALLOWED[package], module


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_a_room_never_imports_the_rooms_above_it(folder):
    modules = [module for module in FILES if within(module, folder)]
    assert modules, f"{folder} does not exist"
    for module in modules:
        for name in imports_of(module):
            assert not any(within(name, forbidden) for forbidden in FORBIDDEN[folder]), f"{module} imports {name}"


def test_the_rooms_named_here_exist():
    for folder in {folder for rooms in FORBIDDEN.values() for folder in rooms}:
        assert any(within(module, folder) for module in FILES), folder


def test_no_module_imports_itself_by_way_of_others():
    try:
        tuple(TopologicalSorter({module: imports_of(module) for module in FILES}).static_order())
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


@pytest.mark.parametrize("module", ["llada_core.errors", "llada_core.text.tokenizer", "server.schemas", "training.cli"])
def test_a_light_module_starts_neither_torch_nor_transformers(module):
    code = f"import {module}, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers"} & set(loaded)


def test_every_schema_module_starts_neither_torch_nor_transformers():
    modules = ", ".join(module for module in FILES if within(module, "server.schemas"))
    code = f"import {modules}, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers"} & set(loaded)


def test_the_core_knows_no_word_of_http():
    words = re.compile(r"/v1/|\bHTTP\b|\bSSE\b|\bOpenAI|\bcompletions?\b|\bendpoint|\bstatus code", re.IGNORECASE)
    for module, file in FILES.items():
        if within(module, "llada_core"):
            for number, line in enumerate(file.read_text().splitlines(), start=1):
                assert not words.search(line), f"{file}:{number}: {line.strip()}"


def test_only_architectures_spell_tensor_names():
    tables = [config().describe().names for config in ARCHITECTURES.values()]
    paths = {path for table in tables for path in (*table.outside.values(), *table.block.values())}
    names = sorted({re.escape(path.removeprefix("model.transformer.")) for path in paths})
    tensor = re.compile(rf"\b({'|'.join(names)})\b|model\.transformer|transformer\[")
    for module, file in FILES.items():
        if not within(module, "llada_core.model.architectures"):
            for number, line in enumerate(file.read_text().splitlines(), start=1):
                assert not tensor.search(line), f"{file}:{number}: {line.strip()}"


def test_nothing_but_the_registry_knows_which_model_it_drives():
    architectures = "llada_core.model.architectures"
    knowing = {
        module
        for module in FILES
        if not within(module, architectures) and any(within(name, architectures) for name in imports_of(module))
    }
    assert knowing == {"llada_core.model.registry"}


def test_only_one_module_of_the_server_prepares_canvases():
    making = re.compile(r"prepare_(response|infilling|fork)|\bCanvas\(")
    makers = {module for module in FILES if within(module, "server") and making.search(FILES[module].read_text())}
    assert makers == {"server.canvases"}


def test_http_status_codes_are_written_in_one_room_of_the_server():
    for module, file in FILES.items():
        if within(module, "server") and not within(module, "server.http"):
            numbers = {node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)}
            codes = {number for number in numbers if isinstance(number, int) and 400 <= number < 600}
            assert not codes, f"{file}: {codes}"


# Classes whose fields are somebody else's format or a command's options: as many as there are, said once.
DECLARATIONS = {"Answer", "Body", "Options", "BaseSettings", "BaseModel", "ModelConfig"}
MOST = 12
# Class → why it has more.
LARGER = {
    "llada_core.sampling.params.GenerationParams": "one field for each sampling setting of the API",
    "clients.events.Start": "one field for each of the server's event",
}


def classes() -> Iterator[tuple[str, ast.ClassDef]]:
    for module, file in FILES.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                yield f"{module}.{node.name}", node


def declarations() -> set[str]:
    """The names of all classes that are declarations, also by way of other classes."""
    bases = {node.name: {ast.unparse(base) for base in node.bases} for _, node in classes()}
    names = set(DECLARATIONS)
    while more := {name for name, parents in bases.items() if parents & names} - names:
        names |= more
    return names


def public_methods(node: ast.ClassDef) -> set[str]:
    methods = {item.name for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)}
    return {name for name in methods if not name.startswith("_")}


def public_attributes(node: ast.ClassDef) -> set[str]:
    fields = {
        item.target.id for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    assigned = {
        target.attr
        for item in ast.walk(node)
        if isinstance(item, ast.Assign | ast.AnnAssign)
        for target in ast.walk(item)
        if isinstance(target, ast.Attribute)
        and isinstance(target.ctx, ast.Store)
        and ast.unparse(target.value) == "self"
    }
    return {name for name in fields | assigned if not name.startswith("_")}


def test_no_class_has_more_than_a_dozen_public_methods_or_attributes():
    exempt = declarations()
    large = {
        name: (len(public_methods(node)), len(public_attributes(node)))
        for name, node in classes()
        if node.name not in exempt and max(len(public_methods(node)), len(public_attributes(node))) > MOST
    }
    assert large.keys() == LARGER.keys(), large
