"""What a learner may know of a text task: its words, its prompts and demonstrations. Nothing of its reward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

END = "<end>"
"""The word that ends a completion; token 0, which also pads."""
Prompt = str | list[dict[str, str]]
"""A text, or a list of messages, each with a `role` and a `content`."""
Demonstrations = Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""From n and a generator to (n,) prompt ids and (n, T) completions, right-padded."""


@dataclass(frozen=True, eq=False)
class Language:
    """Words, prompts and demonstrations of a text task.

    Example:
        >>> from prefenvs.tasks.text import language_of
        >>> language = language_of("TextEnum")
        >>> ids = language.prompts("train")
        >>> language.prompt_tokens[ids].shape, language.decode([1, 2, 0])
        ((8, 2), 'a b')
    """

    words: tuple[str, ...]
    """The word of each token; the first is END."""
    prompt_tokens: np.ndarray
    """(n, P) int64 tokens of every prompt, left-padded."""
    max_new_tokens: int
    """T, tokens after which a completion ends by itself."""
    demonstrate: Demonstrations
    """Draws prompts and completions as a person might write them, good and bad: what a language model is trained on."""
    test_prompts: int = 0
    """The last so many prompts are of the split "test", the others of "train"."""
    eos: int = 0
    """The token that ends a completion."""
    pad: int = 0
    """The token that fills what is left; it may be `eos` itself."""

    @property
    def vocab_size(self) -> int:
        """V, the number of tokens."""
        return len(self.words)

    def prompts(self, split: str = "train") -> np.ndarray:
        """(m,) ids of the prompts of a split: "train", "test" or "all".

        Raises:
            ValueError: for another split.
        """
        n, train = len(self.prompt_tokens), len(self.prompt_tokens) - self.test_prompts
        ranges = {"train": (0, train), "test": (train, n), "all": (0, n)}
        if split not in ranges:
            raise ValueError(f"split={split!r} is not known. Expected one of: {', '.join(ranges)}.")
        return np.arange(*ranges[split])

    def encode(self, text: str) -> list[int]:
        """The tokens of words between spaces.

        Raises:
            ValueError: for a word that the language lacks.
        """
        index = {word: token for token, word in enumerate(self.words)}
        missing = [word for word in text.split() if word not in index]
        if missing:
            raise ValueError(f"{missing[0]!r} is not a word of this language of {len(self.words)} words.")
        return [index[word] for word in text.split()]

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        """The tokens of a prompt without padding; the contents of messages come after one another.

        Raises:
            ValueError: if it is no prompt, or for a word that the language lacks.
        """
        return self.encode(message_text(prompt))

    def decode(self, tokens: Any) -> str:
        """The words of tokens (T,), without padding and ends; `completion_mask` says where a completion is over."""
        flat = np.asarray(tokens)
        return " ".join(self.words[token] for token in flat[(flat != self.pad) & (flat != self.eos)])


def message_text(value: Any) -> str:
    """A text, or the contents of a list of messages after one another.

    Raises:
        ValueError: if it is neither.
    """
    if isinstance(value, str):
        return value
    messages = value if isinstance(value, list | tuple) else [None]
    contents = [message.get("content") if isinstance(message, Mapping) else None for message in messages]
    if not all(isinstance(content, str) for content in contents):
        raise ValueError(f"{value!r:.60}, expected a text or a list of messages, each with a text as content.")
    return " ".join(map(str, contents))


def left_padded(sequences: list[list[int]], pad: int = 0) -> np.ndarray:
    """(n, P) int64 tokens of sequences of different lengths, which end in the last column."""
    width = max(map(len, sequences))
    return np.array([[pad] * (width - len(tokens)) + list(tokens) for tokens in sequences], np.int64)


def right_padded(sequences: list[list[int]], width: int, pad: int = 0) -> np.ndarray:
    """(n, width) int64 tokens of sequences of different lengths, which begin in the first column."""
    return np.array([list(tokens) + [pad] * (width - len(tokens)) for tokens in sequences], np.int64)


def completion_mask(completions: np.ndarray, eos: int = 0, pad: int = 0) -> np.ndarray:
    """(n, T) bool, True on the tokens of completions: up to and including the first `eos`, before any other padding."""
    ends = completions == eos
    over = ends | (completions == pad)
    before = np.cumsum(over, 1) - over
    return (before == 0) & (ends | ~over)


def prompt_numbers(language: Language, prompts: np.ndarray) -> np.ndarray:
    """(n,) int64 ids of left-padded prompts (n, P), of any width; -1 where the language has no such prompt."""
    width = max(prompts.shape[1], language.prompt_tokens.shape[1])
    known, asked = (
        np.pad(tokens, ((0, 0), (width - tokens.shape[1], 0)), constant_values=language.pad)
        for tokens in (language.prompt_tokens, np.asarray(prompts, np.int64))
    )
    numbers = {prompt.tobytes(): number for number, prompt in enumerate(known)}
    return np.array([numbers.get(prompt.tobytes(), -1) for prompt in asked], np.int64)


def prompts_and_completions(segments: Any, language: Language) -> tuple[np.ndarray, np.ndarray]:
    """Segments of a text task, in either view, as a language model reads them.

    Args:
        segments: `Segments` or `JudgedSegments`; what was written before a window that begins within a completion
            counts as its prompt.
        language: of the task.

    Returns:
        (n, P + T) int64 left-padded prompts and (n, T) right-padded completions.
    """
    tokens, seen = segments.observations["tokens"][:, 0], segments.observations["mask"][:, 0].astype(bool)
    behind = np.cumsum(~seen, 1)[:, -1:]  # padding to move to the front
    at = np.arange(tokens.shape[1]) - behind
    prompts = np.where(at >= 0, np.take_along_axis(tokens, np.maximum(at, 0), 1), language.pad)
    if segments.actions.ndim == 2:
        return prompts, np.where(segments.mask, segments.actions, language.pad)
    completions = segments.actions[:, 0]
    return prompts, np.where(completion_mask(completions, language.eos, language.pad), completions, language.pad)


def shared_prompts(prompts: np.ndarray, k: int, language: Language) -> np.ndarray:
    """(n, P) the one prompt of each question, of the left-padded prompts (n * k, P) of its k completions.

    Raises:
        ValueError: where the completions of a question have different prompts.
    """
    questions = prompts.reshape(-1, k, prompts.shape[1])
    other = (questions != questions[:, :1]).any(2)
    if other.any():
        n, j = np.argwhere(other)[0].tolist()
        shown = [language.decode(row[row != language.pad]) for row in questions[n, [0, j]]]
        raise ValueError(
            f"question {n} shows completions of two prompts, {shown[0]!r} and {shown[1]!r}, and a pair has one, which "
            "both are scored with. Ask about completions of one prompt, as prefenvs.queries.pairs_within pairs them; a "
            "reward model fitted to the question reads each with its own."
        )
    return questions[:, 0]
