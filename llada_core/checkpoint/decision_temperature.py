"""The temperature that calibrates a checkpoint's decisions: `decision_temperature` in generation_config.json."""

import json
from pathlib import Path
from reprlib import repr as short

from llada_core.checkpoint.generation_config import generation_file, read_generation_config
from llada_core.errors import UnsupportedCheckpointError
from llada_core.files import new_file

# Beyond these every answer is certain, or all are equally likely.
LOWEST_TEMPERATURE = 0.001
HIGHEST_TEMPERATURE = 1000.0

FIELD = "decision_temperature"


def read_decision_temperature(folder: Path) -> float:
    """Return the checkpoint's temperature; 1 if it names none.

    Raises:
        OSError: the file cannot be read or is not JSON.
        UnsupportedCheckpointError: the temperature is no number from 0.001 to 1000.
    """
    temperature = read_generation_config(folder).get(FIELD)
    if temperature is None:
        return 1.0
    is_number = type(temperature) in (int, float)
    if not is_number or not LOWEST_TEMPERATURE <= temperature <= HIGHEST_TEMPERATURE:
        raise UnsupportedCheckpointError(
            f"{generation_file(folder)}: {FIELD} is {short(temperature)}; it must be a number from "
            f"{LOWEST_TEMPERATURE:g} to {HIGHEST_TEMPERATURE:g}"
        )
    return float(temperature)


def write_decision_temperature(folder: Path, temperature: float) -> None:
    """Set the checkpoint's temperature and keep everything else in its generation_config.json.

    Raises:
        OSError: the file cannot be read or written, or is not JSON.
    """
    content = {**read_generation_config(folder), FIELD: temperature}
    with new_file(generation_file(folder)) as file:
        file.write_text(json.dumps(content, indent=2) + "\n")
