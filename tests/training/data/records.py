"""One dialogue in every format, and records written to a file."""

import json

from training.data.dialogues import Turn
from training.data.sources import find_sources

QUESTION, ANSWER = "What is 1 + 1?", "2."


DIALOGUE = [Turn("user", QUESTION), Turn("assistant", ANSWER, is_target=True)]


RECORDS = {
    "messages": {"messages": [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]},
    "conversations": {"conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}]},
    "alpaca": {"instruction": QUESTION, "input": "", "output": ANSWER},
    "completion": {"prompt": QUESTION, "completion": ANSWER},
}


def records_of(tmp_path, *rows):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return find_sources([str(file)])[0].records()
