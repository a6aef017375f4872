"""The tensors of a checkpoint folder, read from safetensors one at a time.

A model is built while its file is read: only one tensor is mapped at a time, so memory never holds the weights twice.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from llada_core.errors import UnsupportedCheckpointError
from llada_core.files import require_content

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"


class CheckpointWeights:
    """Reads the tensors of one file, or of the shards that an index names.

    Raises:
        UnsupportedCheckpointError: a file that cannot be read.
        FileNotFoundError: no safetensors in the folder, or shards of the index are missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._files: dict[str, Path] = {}
        for file in self._find_files():
            with open_safetensors(file) as tensors:
                for name in tensors.keys():  # noqa: SIM118, a handle is no mapping
                    self._shapes[name] = tuple(tensors.get_slice(name).get_shape())
                    self._files[name] = file

    def check(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Check that the files hold every tensor of the model in its shape, and no other.

        Raises:
            UnsupportedCheckpointError: tensors are missing, unexpected or of another shape; the message names some.
        """
        problems = {
            "missing": expected.keys() - self._shapes.keys(),
            "unexpected": self._shapes.keys() - expected.keys(),
            "mismatched": {name for name, shape in self._shapes.items() if expected.get(name, shape) != shape},
        }
        for problem, names in problems.items():
            if names:
                some = ", ".join(sorted(names)[:5])
                raise UnsupportedCheckpointError(
                    f"{self._folder.name}: {len(names)} {problem} tensors in the weights: {some}"
                )

    def read(self, name: str) -> Tensor:
        """Read one tensor in its stored dtype; its memory is the mapped file until the tensor is dropped."""
        with open_safetensors(self._files[name]) as tensors:
            tensor: Tensor = tensors.get_tensor(name)
        return tensor

    def _find_files(self) -> list[Path]:
        if (self._folder / _SINGLE).exists():
            return [self._folder / _SINGLE]
        index = self._folder / _INDEX
        if not index.exists():
            raise FileNotFoundError(
                f"{self._folder}: no {_SINGLE} and no {_INDEX} in this folder; other weight files are not read"
            )
        try:
            names = set(json.loads(index.read_text())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnsupportedCheckpointError(
                f"{self._folder.name}: {_INDEX} has no readable weight_map: {error!r}"
            ) from None
        return [self._folder / name for name in sorted(names)]


def open_safetensors(file: Path) -> safe_open:
    """Open a file of tensors, to be read one at a time.

    Raises:
        OSError: the file cannot be opened.
        UnsupportedCheckpointError: the file is damaged, or a git-lfs pointer.
    """
    require_content(file)
    try:
        return safe_open(file, framework="pt")
    except SafetensorError as error:
        raise UnsupportedCheckpointError(
            f"{file}: cannot be read as safetensors: {error}; the file may be damaged or cut"
        ) from None
