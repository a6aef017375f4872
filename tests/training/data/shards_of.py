"""Files of records, and the shards made of them."""

import json

from training.data.shards import tokenize
from training.data.sources import find_sources

EOS = 1


TEXTS = ["one two", "three", "four one two three", "two two two two"]


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def shards_of(tmp_path, encoder, *files, **options):
    return tokenize(find_sources(files), encoder, tmp_path / "shards", max_bad_lines=0, **options)
