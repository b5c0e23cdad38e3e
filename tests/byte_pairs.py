"""A small byte-pair tokenizer, trained in the test that uses it."""

import pytest


def byte_pairs(texts, special_tokens):
    """One of the tokenizers package that knows these special tokens and what is frequent in the texts."""
    tokenizers = pytest.importorskip("tokenizers", reason="needs the text extra")
    raw = tokenizers.Tokenizer(tokenizers.models.BPE())
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=special_tokens, initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(texts, trainer)
    return raw
