"""Your own prompts and scorer, in the tokens of any tokenizer: a text task for any causal language model."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prefenvs.tasks.text.env import Factors, TextTask
from prefenvs.tasks.text.language import END, Language, left_padded, right_padded

Scorer = Callable[[list[str], list[str]], Sequence[float]]
"""From n prompts and their completions to (n,) true rewards, finite numbers, all at once."""
LETTERS = tuple(map(chr, range(32, 127)))
PROMPTS = ("A colour: ", "A river: ", "A fruit: ", "A city: ")
ANSWERS = (("red", "green", "Blue!"), ("nile", "rhine", "A92"), ("apple", "plum", "PEAR"), ("oslo", "rome", "Lima?"))


def share_of_letters(prompts: list[str], completions: list[str]) -> list[float]:
    """A scorer to try things out with: which share of each completion's characters are lower-case letters."""
    return [sum("a" <= letter <= "z" for letter in text) / max(len(text), 1) for text in completions]


class TokenizerLanguage(Language):
    """The language of a tokenizer of transformers."""

    def with_tokenizer(self, tokenizer: Any) -> TokenizerLanguage:
        """The same language, whose text `tokenizer` encodes and decodes."""
        object.__setattr__(self, "tokenizer", tokenizer)
        return self

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without special ones."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[attr-defined]

    def decode(self, tokens: Any) -> str:
        """The text of tokens (T,), without special ones."""
        return self.tokenizer.decode(np.asarray(tokens).tolist(), skip_special_tokens=True)  # type: ignore[attr-defined]


class LetterLanguage(Language):
    """The language of single characters."""

    def encode(self, text: str) -> list[int]:
        """A token a character."""
        return [self.words.index(letter) for letter in text]

    def decode(self, tokens: Any) -> str:
        """The characters of tokens (T,), without padding and up to the end."""
        return "".join(self.words[token] for token in np.asarray(tokens) if token != self.eos)


class TextOwn(TextTask):
    """Any prompts, any scorer, any tokenizer. The true reward is what the scorer says of the decoded text.

    Example:
        >>> import gymnasium as gym, prefenvs
        >>> def brief(prompts, completions):
        ...     return [-len(text) for text in completions]
        >>> env = gym.make("prefenvs/TextOwn-v0", prompts=("Tell me: ",), scorer=brief, max_new_tokens=8)
        >>> env.metadata["language"].decode(env.reset(seed=0)[0]["tokens"])
        'Tell me: '
    """

    factor_names = ("score",)

    def __init__(
        self,
        prompts: Sequence[str] | None = None,
        scorer: Scorer | str = share_of_letters,
        tokenizer: Any = None,
        max_new_tokens: int = 6,
        demonstrations: Sequence[tuple[int, str]] | None = None,
        test_prompts: int = 0,
        view: str = "token",
        render_mode: str | None = None,
    ) -> None:
        """Make a task.

        Args:
            prompts: texts, all different; by default a few to try things out with.
            scorer: a function, or "module:function".
            tokenizer: a tokenizer of transformers or a local folder with one; None for single characters.
            max_new_tokens: T.
            demonstrations: (number of the prompt, text) pairs to pre-train a small model of our own on; optional.
            test_prompts: the last so many prompts are of the split "test".
            view: "token" or "completion".
            render_mode: None or "ansi".
        """
        if isinstance(scorer, str):
            module, _, name = scorer.partition(":")
            scorer = getattr(importlib.import_module(module), name)
        if prompts is None and demonstrations is None:
            demonstrations = [(i, word) for i, words in enumerate(ANSWERS) for word in words]
        self._scorer: Any = scorer
        self._demonstrations = demonstrations
        self._texts = list(PROMPTS if prompts is None else prompts)
        shape: dict[str, Any] = {
            "max_new_tokens": max_new_tokens,
            "test_prompts": test_prompts,
            "demonstrate": self._demonstrate,
        }
        language: Language
        if tokenizer is None:
            characters = (END, *LETTERS)
            encoded = [[characters.index(letter) for letter in text] for text in self._texts]
            language = LetterLanguage(characters, left_padded(encoded), **shape)
        else:
            tokenizer = load_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer
            language = _language_of_tokenizer(tokenizer, self._texts, shape)
        super().__init__(language, view, render_mode)

    def _demonstrate(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if self._demonstrations is None:
            raise ValueError(
                "this task has no demonstrations to pre-train on. Pass demonstrations=[(prompt, text), ...], or bring "
                "a model that can write, with prefenvs.tasks.text.lm.TransformersModel."
            )
        ids, tokens = self._encoded()
        rows = rng.integers(len(ids), size=n)
        return ids[rows], tokens[rows]

    def reference_episode(self, rng: np.random.Generator) -> tuple[Any, Any]:
        """A demonstration, or nothing in particular where there are none."""
        return (None, None) if self._demonstrations is None else super().reference_episode(rng)

    def _encoded(self) -> tuple[np.ndarray, np.ndarray]:
        steps, eos = self.language.max_new_tokens, self.language.eos
        ids = np.array([prompt for prompt, _ in self._demonstrations or ()], np.int64)
        texts = [[*self.language.encode(text), eos][:steps] for _, text in self._demonstrations or ()]
        return ids, right_padded(texts, steps, self.language.pad)

    def answers(self, prompt_ids: np.ndarray) -> np.ndarray:
        """(n, T) the demonstration of each prompt that the scorer likes best."""
        ids, tokens = self._encoded()
        rewards = np.where(ids == np.asarray(prompt_ids)[:, None], self.rewards(ids, tokens), -np.inf)
        return tokens[rewards.argmax(1)]

    def _factors(self, prompt_ids: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> Factors:
        texts = [self.language.decode(row[kept]) for row, kept in zip(tokens, mask, strict=True)]
        return {"score": _scores(self._scorer, [self._texts[i] for i in prompt_ids], texts)}


def _scores(scorer: Scorer, prompts: list[str], texts: list[str]) -> np.ndarray:
    """(n,) what the scorer says of completions, refused where it is no finite number for each."""
    given, again = scorer(prompts, texts), "Nothing was judged; reset before the next step."
    try:
        scores = np.asarray(given, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the scorer returned {given!r:.60}, expected a number a completion. {again}") from error
    if scores.shape != (len(texts),):
        raise ValueError(
            f"the scorer returned numbers of shape {scores.shape} for {len(texts)} completions, expected "
            f"({len(texts)},), one for each. {again}"
        )
    for score, prompt, text in zip(scores.tolist(), prompts, texts, strict=True):
        if not math.isfinite(score):
            raise ValueError(
                f"the scorer returned {score} for prompt {prompt!r} and completion {text!r}, expected a finite number. "
                f"{again}"
            )
    return scores


def load_tokenizer(folder: str) -> Any:
    """The tokenizer in a local folder; no network is used.

    Raises:
        ImportError: if transformers is not installed.
        FileNotFoundError: if there is no such folder.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ImportError("tokenizers need transformers: pip install 'prefenvs[text]'.") from error
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"tokenizer={folder!r} is no local folder. Download it first, or pass the tokenizer.")
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _language_of_tokenizer(tokenizer: Any, prompts: list[str], shape: dict[str, Any]) -> TokenizerLanguage:
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no end token. Set tokenizer.eos_token first.")
    eos = int(tokenizer.eos_token_id)
    pad = eos if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
    encoded = [tokenizer(text)["input_ids"] for text in prompts]
    words = tuple(map(str, tokenizer.convert_ids_to_tokens(range(len(tokenizer)))))
    language = TokenizerLanguage(words, left_padded(encoded, pad), eos=eos, pad=pad, **shape)
    return language.with_tokenizer(tokenizer)
