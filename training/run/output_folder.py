"""The output folder of a run, checked before the run needs it."""

import math
import shutil

from llada_core.files import remove_incomplete
from training.errors import TrainingError
from training.files import require_writable
from training.run.lock import LOCK_FILE, OutputLock
from training.run.memory import count_parameters
from training.run.start import Start
from training.run.state import all_checkpoints


def prepare_output_folder(start: Start, lock: OutputLock) -> None:
    """Make the folder, lock it, and delete checkpoints that were never completed.

    Raises:
        TrainingError: the folder cannot be written, is the starting model's, is not empty without `--resume`, or
            another run is working in it.
    """
    folder = start.options.output_dir
    require_writable(folder)
    lock.acquire()
    if start.model.folder is not None and start.model.folder.resolve() == folder.resolve():
        raise TrainingError(f"--output-dir {folder}: is --model-name-or-path too, which would be overwritten")
    # Shards left by a run that failed before its first step do not count.
    if any(entry.name not in ("data", LOCK_FILE) for entry in folder.iterdir()) and not start.options.continues:
        raise TrainingError(f"{folder} is not empty; give --resume to continue in it, or another --output-dir")
    remove_incomplete(folder / "checkpoints")


def require_room(start: Start) -> None:
    """Check now, not at the first checkpoint or the last, that the disk has room.

    Raises:
        TrainingError: names the folder, the room needed and the room free.
    """
    folder = start.options.output_dir
    num_kept = start.options.keep_last + start.options.has_validation  # the best one, if there is validation
    # Besides the checkpoints that stay, one is being written.
    num_missing = max(1, num_kept + 1 - len(all_checkpoints(folder / "checkpoints")))
    total, trained = count_parameters(start.model.config, start.lora)
    # A checkpoint has weights, both moments of AdamW and the average in float32; the finished model is in bfloat16.
    needed = trained * (12 if start.options.ema_decay is None else 16) * num_missing + total * 2
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise TrainingError(
            f"--output-dir {folder}: {math.ceil(needed / 1e6):,} MB needed for checkpoints and the finished model, "
            f"{free // 10**6:,} MB free; lower --keep-last or choose another disk"
        )
