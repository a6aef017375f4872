"""Reads checkpoints as data only: torch.distributed.checkpoint unpickles its metadata, and a pickle can run code.

These classes build nothing but the classes that metadata consists of, and read other values (the optimizer's numbers)
with `weights_only`.
"""

import pickle
from io import BytesIO
from typing import Any

import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import ReadItem

from training.errors import TrainingError

_ALLOWED_MODULES = (
    "torch.distributed.checkpoint.metadata",
    "torch.distributed.checkpoint.filesystem",
    "torch.distributed.tensor.placement_types",
)
_ALLOWED = {
    ("collections", "OrderedDict"),
    ("pathlib", "PosixPath"),
    ("pathlib", "Path"),
    ("torch", "Size"),
    ("torch", "device"),
    ("torch.serialization", "_get_layout"),
    ("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"),
}


class SafeReader(FileSystemReader):
    """Reads a checkpoint folder.

    Raises:
        TrainingError: its metadata names a class that does not belong there.
    """

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with self.fs.create_stream(self._get_metadata_path(kwargs.get("rank")), "rb") as file:
            metadata: Metadata = _MetadataUnpickler(file).load()
        if metadata.storage_meta is None:
            metadata.storage_meta = StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class SafePlanner(DefaultLoadPlanner):
    """The default plan, except that values other than tensors are read without building any object."""

    def load_bytes(self, read_item: ReadItem, value: BytesIO) -> None:
        torch.load(value, weights_only=True)  # raises unless it is plain data, before the default reads it
        value.seek(0)
        super().load_bytes(read_item, value)


class _MetadataUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        is_dtype = module_name == "torch" and isinstance(getattr(torch, global_name, None), torch.dtype)
        if is_dtype or (module_name, global_name) in _ALLOWED:
            return super().find_class(module_name, global_name)
        if module_name in _ALLOWED_MODULES:
            candidate = super().find_class(module_name, global_name)
            if isinstance(candidate, type) and candidate.__module__ == module_name:
                return candidate
        raise TrainingError(f"this checkpoint's metadata names {module_name}.{global_name}; it is not read")
