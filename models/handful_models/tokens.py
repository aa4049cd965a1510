"""A subword tokenizer of a corpus: trained once, kept as a file that a bundle takes along.

Sennrich, Haddow, Birch, "Neural Machine Translation of Rare Words with Subword Units" (2016): pieces are merged by how
often they stand side by side.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from .errors import DataMissing

PADDING, UNKNOWN = "[PAD]", "[UNK]"
MOST_PIECES = 8192


def train_tokenizer(texts: Iterable[str], pieces: int) -> Tokenizer:
    """A tokenizer of at most `pieces` pieces, lower-cased; 0 is padding, 1 is what no piece covers.

    The same texts in the same order give the same tokenizer.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=pieces, special_tokens=[PADDING, UNKNOWN], limit_alphabet=128, min_frequency=2, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a file.

    Raises:
        DataMissing: no such file.
    """
    if not path.is_file():
        raise DataMissing(path, "`handful train` makes it of the papers")
    return Tokenizer.from_file(str(path))


def token_ids(tokenizer: Tokenizer, texts: Sequence[str], length: int) -> NDArray[np.int64]:
    """The first `length` pieces of each text, int64 `[text, length]`, padded with 0."""
    found = np.zeros((len(texts), length), np.int64)
    for place, encoding in enumerate(tokenizer.encode_batch(list(texts))):
        ids = encoding.ids[:length]
        found[place, : len(ids)] = ids
    return found
