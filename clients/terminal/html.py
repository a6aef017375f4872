"""Writes a recording as one page that replays without a server: the web page's own viewer, as its export has it."""

import json
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from clients.terminal.recording import Recording, content_of

_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"
_TITLE = "LLaDA · a recorded denoising"


def write_html(path: Path, recordings: Sequence[Recording]) -> None:
    """Save finished runs as a page."""
    # Nothing in JSON may end the element that holds it.
    data = json.dumps(content_of(recordings)).replace("<", "\\u003c")
    viewer = re.search(r"<!-- viewer -->(.*)<!-- /viewer -->", _text("index.html"), re.DOTALL)
    assert viewer
    modules = "\n".join(_inlined(_text(f"{name}.js")) for name in _module_names())
    path.write_text(
        f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{_TITLE}</title>
<style>{_text("style.css")}</style>
</head>
<body class="standalone">
<main><h1>{_TITLE}</h1>{viewer[1]}</main>
<script type="application/json" id="recording">{data}</script>
<script type="module">
{modules}
const file = JSON.parse(document.getElementById("recording").textContent);
const {{ recordings, titles }} = recordingsOf(file);
new Viewer(document).open(recordings, titles);
</script>
</body>
</html>
""",
        encoding="utf-8",
    )


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
