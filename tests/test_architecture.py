"""The house's one rule: server and training meet only in the core, and the core knows neither."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "llada_core": {"llada_core"},
    "server": {"server", "llada_core", "clients"},
    "training": {"training", "llada_core"},
    "clients": {"clients"},
}


def imported_packages(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found & MAY_IMPORT.keys()


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_the_design_allows(package):
    for file in (ROOT / package).rglob("*.py"):
        assert imported_packages(file) <= MAY_IMPORT[package], file
