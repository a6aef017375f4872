"""Draws the film of a run as an animated GIF."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from rich.cells import cell_len

from clients.terminal.canvas_view import prompt_text
from clients.terminal.cells import Cell, cells_of, plain
from clients.terminal.figures import figures, progress
from clients.terminal.playback import Playback, Speed, film
from clients.terminal.recording import Recording
from clients.terminal.wrapping import wrap

MOST_FRAMES = 120
LAST_FRAME_MS = 2000
_COLUMNS = 64
_FONT_SIZE, _LINE_SPACING, _MARGIN = 16, 1.5, 20
_SHADES = 6
_FONTS = ("DejaVuSansMono.ttf", "LiberationMono-Regular.ttf", "Menlo.ttc", "consola.ttf")
_FOLDERS = ("/usr/share/fonts/truetype/dejavu", "/usr/share/fonts/truetype/liberation", "/System/Library/Fonts")

Colour = tuple[int, int, int]
_BACKGROUND: Colour = (22, 24, 31)
_TEXT: Colour = (214, 217, 224)
_QUIET: Colour = (122, 128, 142)
_MASK: Colour = (52, 56, 68)
_ACTIVE_MASK: Colour = (70, 105, 130)
_DARK: Colour = (16, 17, 22)
_BANDS: Mapping[str, Colour] = {"low": (235, 110, 105), "mid": (232, 193, 92), "high": (126, 203, 142)}


@dataclass(frozen=True, slots=True)
class _Span:
    """Text in one style; a mask is a box without text.

    Attributes:
        ground: the colour behind it; None is that of the picture.
    """

    text: str
    colour: Colour
    ground: Colour | None = None


Row = list[_Span]


def write_gif(path: Path, recordings: Sequence[Recording], speed: Speed) -> None:
    """Write the film of finished runs: at most 120 frames, the last held for two seconds."""
    moments = [(seconds, rows_of(playback)) for seconds, playback in film(recordings, speed)]
    kept = _thinned(moments)
    height = max(len(rows) for _, rows in kept)
    images = [draw(rows, height) for _, rows in kept]
    times = [round(seconds * 100) * 10 for seconds, _ in kept]  # GIF counts in hundredths of a second
    durations = [later - earlier for earlier, later in pairwise(times)]
    images[0].save(
        path, format="GIF", save_all=True, append_images=images[1:], duration=[*durations, LAST_FRAME_MS], loop=0
    )


def rows_of(playback: Playback) -> list[Row]:
    """The picture in rows of text, as it is now."""
    rows: list[Row] = []
    if prompt := prompt_text(playback.shown[0].recording.request):
        lines = wrap([Cell(0, prompt, "given")], _COLUMNS)
        rows += [[_Span("".join(piece.text for piece in line), _QUIET)] for line in lines[:3]]
        rows.append([])
    for number, shown in enumerate(playback.shown):
        if number:
            rows.append([])
        if shown.recording.name:
            rows.append([_Span(plain(shown.recording.name), _QUIET)])
        for line in wrap(cells_of(shown), _COLUMNS):
            rows.append([span for piece in line for span in _spans(piece.text, piece.cell)])
        status = figures(shown.replay) if shown.is_over else progress(shown.replay)
        rows.append([_Span(status, _QUIET)])
    return rows


def draw(rows: Sequence[Row], height: int) -> Image.Image:
    """A picture of the rows, as high as so many of them."""
    char, line = _char_width(), round(_FONT_SIZE * _LINE_SPACING)
    size = (2 * _MARGIN + round(_COLUMNS * char), 2 * _MARGIN + height * line)
    image = Image.new("RGB", size, _BACKGROUND)
    pen = ImageDraw.Draw(image)
    for number, row in enumerate(rows):
        column, top = 0, _MARGIN + number * line
        for span in row:
            left = _MARGIN + round(column * char)
            column += cell_len(span.text)
            right = _MARGIN + round(column * char)
            if span.ground is not None:
                pen.rectangle((left, top + 1, right - 1, top + line - 4), fill=span.ground)
            if span.text.strip("░▒ "):
                pen.text((left, top + 1), span.text, fill=span.colour, font=_font())
    return image.quantize(palette=_palette(), dither=Image.Dither.NONE)


def _spans(text: str, cell: Cell) -> Iterator[_Span]:
    stripped = text.lstrip(" ")
    if len(stripped) < len(text):
        yield _Span(text[: len(text) - len(stripped)], _TEXT)
    if cell.kind == "mask":
        yield _Span(stripped, _MASK, _ACTIVE_MASK if cell.is_active else _MASK)
    elif cell.kind in _BANDS and cell.is_fresh:
        yield _Span(stripped, _DARK, _BANDS[cell.kind])
    elif cell.kind in ("end", "given"):
        yield _Span(stripped, _QUIET)
    else:
        yield _Span(stripped, _BANDS[cell.kind] if cell.kind in ("low", "mid") else _TEXT)


def _thinned(moments: list[tuple[float, list[Row]]]) -> list[tuple[float, list[Row]]]:
    """At most as many moments as a GIF may have, the first and the last among them."""
    if len(moments) <= MOST_FRAMES:
        return moments
    last = len(moments) - 1
    return [moments[i * last // (MOST_FRAMES - 1)] for i in range(MOST_FRAMES)]


@cache
def _palette() -> Image.Image:
    """One palette for all frames: every colour on every ground, with the shades between them for smooth letters."""
    pairs = [(_BACKGROUND, colour) for colour in (_TEXT, _QUIET, _MASK, _ACTIVE_MASK, *_BANDS.values())]
    pairs += [(ground, _DARK) for ground in _BANDS.values()]
    colours = dict.fromkeys(_between(a, b, i / _SHADES) for a, b in pairs for i in range(_SHADES + 1))
    image = Image.new("P", (1, 1))
    image.putpalette([part for colour in colours for part in colour])
    return image


def _between(a: Colour, b: Colour, share: float) -> Colour:
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    for name in (*_FONTS, *(f"{folder}/{name}" for folder in _folders() for name in _FONTS)):
        try:
            return ImageFont.truetype(name, _FONT_SIZE)
        except OSError:
            continue
    return ImageFont.load_default(_FONT_SIZE)


def _folders() -> list[str]:
    """Where fonts are; matplotlib brings one along, if it is installed."""
    matplotlib = find_spec("matplotlib")
    places = matplotlib.submodule_search_locations if matplotlib else None
    return [*_FOLDERS, *(f"{place}/mpl-data/fonts/ttf" for place in places or [])]


@cache
def _char_width() -> float:
    return _font().getlength("0" * 100) / 100
