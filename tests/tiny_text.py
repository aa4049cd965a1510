"""A tiny tokenizer: a dozen words, whitespace between them."""

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace

WORDS = ("[PAD]", "[UNK]", "how", "many", "pages", "is", "it", "good", "which", "keys", "north", "south")


def tokenizer_json() -> bytes:
    """A `tokenizer.json`; it asks for padding and truncation, which only the manifest may say."""
    vocabulary = {word: place for place, word in enumerate(WORDS)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106 (no password)
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    tokenizer.enable_padding(length=3)
    tokenizer.enable_truncation(2)
    return tokenizer.to_str().encode()


def ids(text: str) -> list[int]:
    """What the tokenizer must give."""
    return [WORDS.index(word) if word in WORDS else 1 for word in text.lower().split()]
