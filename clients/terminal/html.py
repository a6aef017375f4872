"""Writes a recording as one page that replays without a server: the web page's own viewer, as its export has it."""

import json
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from clients.terminal.recording import Recording, content_of


def write_html(path: Path, recordings: Sequence[Recording]) -> None:
    """Save finished runs as a page."""
    viewer = re.search(r"<!-- viewer -->(.*)<!-- /viewer -->", _text("index.html"), re.DOTALL)
    assert viewer
    parts = {
        "style": _text("style.css"),
        "viewer": viewer[1],
        # Nothing in JSON may end the element that holds it.
        "recording": json.dumps(content_of(recordings)).replace("<", "\\u003c"),
        "modules": "\n".join(_inlined(_text(f"{name}.js")) for name in _module_names()),
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _text("standalone.html"))
    path.write_text(page, encoding="utf-8")


def _module_names() -> list[str]:
    """The viewer's modules in the order in which they use each other, from the page's own list."""
    found = re.search(r"^const MODULES = (\[.*\]);$", _text("standalone.js"), re.MULTILINE)
    assert found
    names: list[str] = json.loads(found[1])
    return names


def _inlined(module: str) -> str:
    """A module's text without its imports and exports: all of them share one scope."""
    return re.sub(r"^export ", "", re.sub(r"^import .*$", "", module, flags=re.MULTILINE), flags=re.MULTILINE)


def _text(name: str) -> str:
    return (files("clients") / "web" / name).read_text(encoding="utf-8")
