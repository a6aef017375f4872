"""The tensors of a checkpoint folder, read from safetensors one at a time.

A model is built while its file is read: only one tensor is mapped at a time, so memory never holds the weights twice.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from reprlib import repr as short

from safetensors import SafetensorError, safe_open
from torch import Tensor

from llada_core.errors import UnsupportedCheckpointError, shorten
from llada_core.files import read_json, require_content

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"

# A name, no path. What it leads to is not checked: in the hub's caches all files are links.
_SHARD = re.compile(r"[\w. -]+\.safetensors")

# The names of 100,000 tensors take 10 MB; the library itself stops at 100 MB, which take it 17 s and a gigabyte.
_MOST_HEADER_BYTES = 16 << 20

# Other dtypes hold quantised weights, which mean nothing without their scales.
_DTYPES = ("F64", "F32", "BF16", "F16")


class CheckpointWeights:
    """Reads the tensors of one file, or of the shards that an index names.

    Raises:
        UnsupportedCheckpointError: a file that cannot be read, a tensor that is there twice or is quantised.
        FileNotFoundError: no safetensors in the folder, or shards of the index are missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._files: dict[str, Path] = {}
        # Tensor → the stack that holds it, its expert, and its rows.
        self._stacked: dict[str, tuple[str, int, slice]] = {}
        for file in self._find_files():
            with open_safetensors(file) as tensors:
                for name in tensors.keys():  # noqa: SIM118, a handle is no mapping
                    if name in self._files:
                        raise UnsupportedCheckpointError(
                            f"{file}: holds {shorten(name)}, which {self._files[name].name} holds too"
                        )
                    tensor = tensors.get_slice(name)
                    if tensor.get_dtype() not in _DTYPES:
                        raise UnsupportedCheckpointError(
                            f"{file}: {shorten(name)} is stored as {tensor.get_dtype()}; it must be one of "
                            f"{', '.join(_DTYPES)}"
                        )
                    self._shapes[name] = tuple(tensor.get_shape())
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
                some = ", ".join(map(shorten, sorted(names)[:5]))
                raise UnsupportedCheckpointError(
                    f"{self._folder.name}: {len(names)} {problem} tensors in the weights: {some}"
                )

    def unstack(self, stacks: Mapping[str, Sequence[Sequence[str]]]) -> None:
        """Give the parts of stacked tensors names of their own; stacks that the files lack are ignored.

        Args:
            stacks: for each expert of a stack [X, rows, columns], the names of its parts, which share the rows evenly.
        """
        for stack, experts in stacks.items():
            shape = self._shapes.get(stack, ())
            # One of another shape is left as it is, an unexpected tensor.
            if len(shape) != 3 or shape[0] != len(experts) or shape[1] % len(experts[0]):
                continue
            del self._shapes[stack]
            num_rows = shape[1] // len(experts[0])
            for expert, parts in enumerate(experts):
                for number, name in enumerate(parts):
                    if name in self._shapes:
                        raise UnsupportedCheckpointError(
                            f"{self._files[name]}: holds {shorten(name)}, which {shorten(stack)} holds too"
                        )
                    self._shapes[name] = (num_rows, shape[2])
                    self._files[name] = self._files[stack]
                    self._stacked[name] = stack, expert, slice(number * num_rows, (number + 1) * num_rows)

    def read(self, name: str) -> Tensor:
        """Read one tensor in its stored dtype; its memory is the mapped file until the tensor is dropped."""
        with open_safetensors(self._files[name]) as tensors:
            if name in self._stacked:
                stack, expert, rows = self._stacked[name]
                part: Tensor = tensors.get_slice(stack)[expert, rows]
                return part
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
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise UnsupportedCheckpointError(
                f"{index}: weight_map is {short(weight_map)}; it must name the file of every tensor"
            )
        for name in weight_map.values():
            if not isinstance(name, str) or not _SHARD.fullmatch(name):
                raise UnsupportedCheckpointError(
                    f"{index}: weight_map names {short(name)}; it must name .safetensors files of the same folder"
                )
        return [self._folder / name for name in sorted(set(weight_map.values()))]


def open_safetensors(file: Path) -> safe_open:
    """Open a file of tensors, to be read one at a time.

    Raises:
        OSError: the file cannot be opened.
        UnsupportedCheckpointError: the file is damaged, or a git-lfs pointer.
    """
    require_content(file)
    with file.open("rb") as opened:
        header_bytes = int.from_bytes(opened.read(8), "little")
    if header_bytes > _MOST_HEADER_BYTES:
        raise UnsupportedCheckpointError(
            f"{file}: cannot be read as safetensors: its header has {header_bytes} bytes; it must have at most "
            f"{_MOST_HEADER_BYTES}"
        )
    try:
        return safe_open(file, framework="pt")
    except SafetensorError as error:
        raise UnsupportedCheckpointError(
            f"{file}: cannot be read as safetensors: {shorten(str(error))}; the file may be damaged or cut"
        ) from None
    except RuntimeError as error:  # torch's, for a file that is larger than the machine's memory
        raise UnsupportedCheckpointError(f"{file}: cannot be mapped: {shorten(str(error))}") from None
