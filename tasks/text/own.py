"""Your own prompts and scorer, in the tokens of any tokenizer: a text task for any causal language model."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from prefenvs.tasks.text.env import Factors, TextTask
from prefenvs.tasks.text.language import END, Language, Prompt, left_padded, message_text, right_padded

Scorer = Callable[[list[Any], list[str]], Sequence[float]]
"""From n prompts, as the task was given them, and their completions to (n,) finite true rewards, all at once."""
LETTERS = tuple(map(chr, range(32, 127)))
PROMPTS = ("A colour: ", "A river: ", "A fruit: ", "A city: ")
ANSWERS = (("red", "green", "Blue!"), ("nile", "rhine", "A92"), ("apple", "plum", "PEAR"), ("oslo", "rome", "Lima?"))


def share_of_letters(prompts: list[Any], completions: list[str]) -> list[float]:
    """A scorer to try things out with: which share of each completion's characters are lower-case letters."""
    return [sum("a" <= letter <= "z" for letter in text) / max(len(text), 1) for text in completions]


class TokenizerLanguage(Language):
    """The language of a tokenizer of transformers."""

    def with_tokenizer(self, tokenizer: Any) -> TokenizerLanguage:
        """The same language, whose text `tokenizer` encodes and decodes."""
        object.__setattr__(self, "tokenizer", tokenizer)
        return self

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        """The tokens of a text as the tokenizer begins one, or of messages by its chat template.

        Raises:
            ValueError: if it is no prompt, or messages and there is no template.
        """
        return _encode_prompt(self.tokenizer, prompt)  # type: ignore[attr-defined]

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without special ones."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[attr-defined]

    def decode(self, tokens: Any) -> str:
        """The text of tokens (T,), without special ones."""
        return self.tokenizer.decode(np.asarray(tokens).tolist(), skip_special_tokens=True)  # type: ignore[attr-defined]


class LetterLanguage(Language):
    """The language of single characters."""

    def encode(self, text: str) -> list[int]:
        """A token a character.

        Raises:
            ValueError: for a character that is not ASCII.
        """
        for letter in text:
            if letter not in LETTERS:
                raise ValueError(f"{letter!r} in {text!r:.40} is no printable ASCII character. Pass a tokenizer.")
        return [1 + LETTERS.index(letter) for letter in text]

    def decode(self, tokens: Any) -> str:
        """The characters of tokens (T,), without padding and ends."""
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
        prompts: Sequence[Prompt] | None = None,
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
            prompts: texts or lists of messages, all different; by default a few texts to try things out with.
            scorer: a function, or "module:function".
            tokenizer: a tokenizer of transformers or a local folder with one; None for single characters.
            max_new_tokens: T, at least 1.
            demonstrations: (number of the prompt, text) pairs to pre-train a small model of our own on; optional. Texts
                are cut after T tokens.
            test_prompts: the last so many prompts are of the split "test", which is not demonstrated.
            view: "token" or "completion".
            render_mode: None or "ansi".

        Raises:
            ValueError: saying which argument makes no task, and what was expected.
        """
        if prompts is None and demonstrations is None:
            demonstrations = [(i, word) for i, words in enumerate(ANSWERS) for word in words]
        prompts = PROMPTS if prompts is None else prompts
        _check(prompts, max_new_tokens, demonstrations, test_prompts)
        self._scorer, self._prompts = _function(scorer), list(prompts)
        shape: dict[str, Any] = {
            "max_new_tokens": max_new_tokens,
            "test_prompts": test_prompts,
            "demonstrate": self._demonstrate,
        }
        if tokenizer is None:
            language: Language = _language_of_letters(self._prompts, shape)
        else:
            tokenizer = load_tokenizer(tokenizer) if isinstance(tokenizer, str | Path) else tokenizer
            language = _language_of_tokenizer(tokenizer, self._prompts, shape)
        super().__init__(language, view, render_mode)
        self._demonstrations = None if demonstrations is None else _encoded(demonstrations, language)

    def _demonstrate(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        ids, tokens = self._known()
        rows = rng.integers(len(ids), size=n)
        return ids[rows], tokens[rows]

    def _known(self) -> tuple[np.ndarray, np.ndarray]:
        """(m,) prompts and (m, T) completions of the demonstrations."""
        if self._demonstrations is None:
            raise ValueError(
                "this task has no demonstrations to pre-train on. Pass demonstrations=[(prompt, text), ...], or bring "
                "a model that can write, with prefenvs.tasks.text.lm.TransformersModel."
            )
        return self._demonstrations

    def reference_episode(self, rng: np.random.Generator) -> tuple[Any, Any]:
        """A demonstration, or nothing in particular where there are none."""
        return (None, None) if self._demonstrations is None else super().reference_episode(rng)

    def answers(self, prompt_ids: np.ndarray) -> np.ndarray:
        """(n, T) the demonstration of each prompt that the scorer likes best."""
        ids, tokens = self._known()
        rewards = np.where(ids == np.asarray(prompt_ids)[:, None], self.rewards(ids, tokens), -np.inf)
        return tokens[rewards.argmax(1)]

    def _factors(self, prompt_ids: np.ndarray, tokens: np.ndarray, mask: np.ndarray) -> Factors:
        texts = [self.language.decode(row[kept]) for row, kept in zip(tokens, mask, strict=True)]
        return {"score": _scores(self._scorer, [self._prompts[i] for i in prompt_ids], texts)}


def _check(prompts: Any, max_new_tokens: Any, demonstrations: Any, test_prompts: Any) -> None:
    """Refuse what makes no task, whatever the language."""
    if isinstance(prompts, str) or not len(prompts):
        raise ValueError(f"prompts={prompts!r}, expected a sequence of at least one prompt, as prompts=('Tell me: ',).")
    for number, prompt in enumerate(prompts):
        _naming(f"prompts[{number}]", message_text, prompt)
    if not isinstance(max_new_tokens, int | np.integer) or max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens!r}, expected a whole number of at least 1.")
    if not isinstance(test_prompts, int | np.integer) or not 0 <= test_prompts < len(prompts):
        raise ValueError(
            f"test_prompts={test_prompts!r}, expected a whole number in [0, {len(prompts)}): one of the {len(prompts)} "
            "prompts at least is to train on."
        )
    if demonstrations is None:
        return
    if not len(demonstrations):
        raise ValueError("demonstrations is empty, expected (number of the prompt, text) pairs, or None.")
    train = len(prompts) - test_prompts
    for number, pair in enumerate(demonstrations):
        match pair:
            case (int() | np.integer() as prompt, str()) if 0 <= prompt < train:
                continue
        raise ValueError(
            f"demonstrations[{number}]={pair!r:.60}, expected a pair of a text and, before it, the number of a prompt "
            f"to train on, in [0, {train})."
        )


def _naming(argument: str, function: Callable[[Any], Any], value: Any) -> Any:
    """`function(value)`, whose ValueErrors begin with the name of the argument."""
    try:
        return function(value)
    except ValueError as error:
        raise ValueError(f"{argument}: {error}") from error


def _encoded(demonstrations: Sequence[tuple[int, str]], language: Language) -> tuple[np.ndarray, np.ndarray]:
    """(m,) numbers of prompts and their (m, T) right-padded texts with an end, where there is room for it."""
    steps, texts = language.max_new_tokens, []
    for number, (_, text) in enumerate(demonstrations):
        tokens = _naming(f"demonstrations[{number}]", language.encode, text)
        texts.append([*tokens, language.eos][:steps])
    return np.array([prompt for prompt, _ in demonstrations], np.int64), right_padded(texts, steps, language.pad)


def _function(scorer: Any) -> Scorer:
    if isinstance(scorer, str) and ":" in scorer:
        module, _, name = scorer.partition(":")
        scorer = getattr(importlib.import_module(module), name)
    if not callable(scorer):
        raise ValueError(f'scorer={scorer!r}, expected a function of (prompts, completions), or "module:function".')
    return scorer


def _scores(scorer: Scorer, prompts: list[Any], texts: list[str]) -> np.ndarray:
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


def load_tokenizer(folder: str | Path) -> Any:
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
        raise FileNotFoundError(
            f"tokenizer={str(folder)!r} is no local folder. Download it first, or pass the tokenizer."
        )
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _encode_prompt(tokenizer: Any, prompt: Prompt) -> list[int]:
    if isinstance(prompt, str):
        return tokenizer(prompt)["input_ids"]
    message_text(prompt)  # which refuses what is no prompt
    if tokenizer.chat_template is None:
        raise ValueError("the tokenizer has no template for messages. Set tokenizer.chat_template, or pass texts.")
    text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _prompt_tokens(prompts: list[Any], encode: Callable[[Any], list[int]], pad: int) -> np.ndarray:
    """(n, P) left-padded tokens, refused where a prompt has none or those of another."""
    tokens = left_padded([_naming(f"prompts[{i}]", encode, prompt) for i, prompt in enumerate(prompts)], pad)
    first: dict[tuple[int, ...], int] = {}
    for number, row in enumerate(tokens.tolist()):
        if set(row) <= {pad}:
            raise ValueError(f"prompts[{number}]={prompts[number]!r} has no tokens, expected at least one.")
        if (same := first.setdefault(tuple(row), number)) != number:
            raise ValueError(f"prompts[{number}]={prompts[number]!r:.60} has the tokens of prompts[{same}] again.")
    return tokens


def _language_of_letters(prompts: list[Any], shape: dict[str, Any]) -> LetterLanguage:
    words = (END, *LETTERS)
    letters = LetterLanguage(words, np.zeros((0, 0), np.int64), **shape)
    return replace(letters, prompt_tokens=_prompt_tokens(prompts, letters.encode_prompt, 0))


def _language_of_tokenizer(tokenizer: Any, prompts: list[Any], shape: dict[str, Any]) -> TokenizerLanguage:
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no end token. Set tokenizer.eos_token first.")
    eos = int(tokenizer.eos_token_id)
    pad = eos if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
    tokens = _prompt_tokens(prompts, partial(_encode_prompt, tokenizer), pad)
    words = tuple(map(str, tokenizer.convert_ids_to_tokens(range(len(tokenizer)))))
    return TokenizerLanguage(words, tokens, eos=eos, pad=pad, **shape).with_tokenizer(tokenizer)
