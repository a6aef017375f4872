"""Anchors: `^` and `$` say something about the ends of a match alone, and are taken out of its tree.

One that does not stand at an end of the pattern, or of an alternative there, is refused.
"""

from collections import deque
from typing import Literal

from llada_core.sampling.constraints.characters import complement
from llada_core.sampling.constraints.syntax import Anchor, Characters, Choice, Node, PatternError, Repeat, Sequence

_NOTHING = Sequence(())
ANYTHING = Repeat(Characters(complement(())), 0, None)
"""Any text."""


def matched_whole(tree: Node) -> Node:
    """The texts that match from start to end: at an end of them an anchor changes nothing.

    Raises:
        PatternError: an anchor is not at an end.
    """
    return _without_anchors(tree, around=_NOTHING)


def matched_somewhere(tree: Node) -> Node:
    """The texts in which a match is found: where no anchor holds an end of it, anything may be beyond that end.

    Raises:
        PatternError: an anchor is not at an end.
    """
    return _without_anchors(tree, around=ANYTHING)


def _without_anchors(tree: Node, around: Node) -> Node:
    for end in "start", "end":
        tree = _closed(tree, end, around)
    left = _first_anchor(tree)
    if left is not None:
        raise PatternError(f"has an anchor {left.text} that is not at an end of it (at position {left.place})")
    return tree


def _closed(node: Node, end: Literal["start", "end"], around: Node) -> Node:
    """The node with what may stand beyond one end of it, which is nothing where an anchor holds that end."""
    is_start = end == "start"
    match node:
        case Anchor() if node.end == end:
            return _NOTHING
        case Choice(alternatives) if _first_anchor(node, end):
            return Choice(tuple(_closed(alternative, end, around) for alternative in alternatives))
        case Sequence(parts) if parts and _first_anchor(parts[0 if is_start else -1], end):
            inward = deque(parts if is_start else reversed(parts))
            while inward and isinstance(inward[0], Anchor) and inward[0].end == end:
                inward.popleft()
                around = _NOTHING
            if inward:
                inward[0] = _closed(inward[0], end, around)
            return Sequence(tuple(inward if is_start else reversed(inward)))
    if around is _NOTHING:
        return node
    return Sequence((around, node) if is_start else (node, around))


def _first_anchor(node: Node, end: str | None = None) -> Anchor | None:
    """The first anchor within, if there is one; with `end`, of those that hold this end."""
    match node:
        case Anchor():
            return node if end in (None, node.end) else None
        case Sequence(parts) | Choice(parts):
            return next(filter(None, (_first_anchor(part, end) for part in parts)), None)
        case Repeat(part):
            return _first_anchor(part, end)
    return None
