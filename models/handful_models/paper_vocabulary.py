"""The files that a learner of papers is built from: the tokenizer, and the key words that it tells."""

import json
from pathlib import Path

from . import papers
from .errors import DataMissing
from .runs import write_json
from .tokens import train_tokenizer

TOKENIZER, KEYWORDS = "tokenizer.json", "keywords.json"


def ensure(folder: Path, data: Path, pieces: int) -> None:
    """Make the files of training papers, unless both are there.

    Raises:
        DataMissing: the papers are not there.
    """
    if all((folder / name).is_file() for name in (TOKENIZER, KEYWORDS)):
        return
    found = papers.load(data)
    folder.mkdir(parents=True, exist_ok=True)
    train_tokenizer([found.text[row] for row in found.rows("train")], pieces).save(str(folder / TOKENIZER))
    write_json(folder / KEYWORDS, list(found.labels))


def keywords(folder: Path) -> tuple[str, ...]:
    """The key words, in the order of their columns.

    Raises:
        DataMissing: no such file.
    """
    path = folder / KEYWORDS
    if not path.is_file():
        raise DataMissing(path, "`handful train` makes it of the papers")
    return tuple(json.loads(path.read_text(encoding="utf-8")))
