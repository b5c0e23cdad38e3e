import json
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

import prefenvs
from prefenvs import Label, Query, SegmentForgotten, one_hot
from prefenvs.error import DamagedFile
from prefenvs.tasks.text import TEXT_TASKS, language_of
from prefenvs.tasks.text.language import completion_mask, prompts_and_completions
from prefenvs.text_dataset import (
    completion_segments,
    load_preferences,
    preference_rows,
    preferences_of,
    save_preferences,
)
from tests.byte_pairs import byte_pairs

LANGUAGE = language_of("TextEnum")
GOOD = {"prompt": "a b", "chosen": "c", "rejected": "b a"}


def demonstrated(language, n, seed=0):
    """Prompts and completions, two completions of each prompt, what follows the end padded."""
    ids, _ = language.demonstrate(n, np.random.default_rng([seed, 1]))
    _, tokens = language.demonstrate(2 * n, np.random.default_rng(seed))
    mask = completion_mask(tokens, language.eos, language.pad)
    return language.prompt_tokens[np.repeat(ids, 2)], np.where(mask, tokens, language.pad)


def asked(n=6, winners=None, strength=None, language=LANGUAGE):
    query = Query(completion_segments(*demonstrated(language, n), language))
    winners = np.arange(n) % 2 if winners is None else winners
    return query, Label(one_hot(winners), strength=strength)


def same_texts(one, other, language=LANGUAGE):
    tokens = [prompts_and_completions(query.segments, language) for query in (one, other)]
    width = min(prompts.shape[1] for prompts, _ in tokens)
    np.testing.assert_array_equal(*(prompts[:, -width:] for prompts, _ in tokens))
    np.testing.assert_array_equal(*(completions for _, completions in tokens))


@pytest.mark.parametrize("task", ["TextEnum", "TextBandit", "TextKeyword"])
def test_segments_of_completions_are_those_the_environment_shows(task):
    envs, language = gym.make_vec(f"prefenvs/{task}-v0", num_envs=8, view="completion"), language_of(task)
    ids, tokens = language.demonstrate(8, np.random.default_rng(0))
    before, _ = envs.reset(seed=0, options={"prompt_id": ids})
    after, *_ = envs.step(tokens)
    mask = completion_mask(tokens, language.eos, language.pad)
    segments = completion_segments(language.prompt_tokens[ids], np.where(mask, tokens, language.pad), language)
    for name in before:
        np.testing.assert_array_equal(segments.observations[name][:, 0], before[name])
        np.testing.assert_array_equal(segments.observations[name][:, 1], after[name])
        assert segments.observations[name].dtype == before[name].dtype
    with pytest.raises(SegmentForgotten, match="Nothing was spent"):
        prefenvs.feedback(envs).ask(Query(segments))


def test_pairs_of_completions_of_two_prompts_are_no_rows_but_each_by_itself_is():
    query, label = asked()
    shifted = Query(query.segments[[1, 2, 3, 4]])
    with pytest.raises(ValueError, match=r"question 0 shows completions of two prompts, .* and a pair has one"):
        preference_rows(shifted, label[:2], LANGUAGE)
    prompts = [row["prompt"] for row in preference_rows(shifted, label[:2], LANGUAGE, "completions")]
    assert sorted(prompts) == sorted(
        LANGUAGE.decode(row) for row in prompts_and_completions(shifted.segments, LANGUAGE)[0][:, -2:]
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("task", [spec.name for spec in TEXT_TASKS if spec.name != "TextOwn"])
def test_pairs_survive_a_round_trip_with_the_preferred_one_first(task, suffix, tmp_path):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="needs the text extra")
    language, strength = language_of(task), np.arange(6) / 2
    query, label = asked(strength=strength, language=language)
    path = tmp_path / f"pairs{suffix}"
    assert save_preferences(path, query, label, language) == 6
    read, answers = load_preferences(path, language)
    order = np.stack([np.arange(6) * 2 + np.arange(6) % 2, np.arange(6) * 2 + 1 - np.arange(6) % 2], 1)
    same_texts(read, Query(query.segments[order.ravel()]), language)
    assert answers.choice.tolist() == [[1, 0]] * 6
    assert answers.strength.tolist() == strength.tolist()
    assert preference_rows(read, answers, language) == preference_rows(query, label, language)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_single_completions_survive_as_ratings(suffix, tmp_path):
    query, label = asked()
    path = tmp_path / f"single{suffix}"
    assert save_preferences(path, query, label, LANGUAGE, kind="completions") == 12
    read, answers = load_preferences(path, LANGUAGE)
    assert (read.n, read.k) == (12, 1)
    assert answers.ratings[:, 0].tolist() == [1, 0] * 6
    order = [i * 2 + j for i in range(6) for j in (i % 2, 1 - i % 2)]
    same_texts(read, Query(query.segments[order], k=1))


def test_what_was_skipped_or_tied_is_left_out_and_k_completions_make_k_minus_one_pairs():
    prompts, tokens = demonstrated(LANGUAGE, 6)
    query = Query(completion_segments(prompts[np.arange(12) // 3 * 3], tokens, LANGUAGE), k=3)
    choice = np.array([[1, 0, 0], [np.nan] * 3, [0.5, 0.5, 0], [0, 0, 1]])
    rows = preference_rows(query, Label(choice), LANGUAGE)
    assert len(rows) == 4
    texts = [LANGUAGE.decode(row) for row in query.segments.actions[:, 0]]
    assert [(row["chosen"], row["rejected"]) for row in rows] == [
        (texts[0], texts[1]), (texts[0], texts[2]), (texts[11], texts[9]), (texts[11], texts[10]),
    ]  # fmt: skip
    assert set(rows[0]) == {"prompt", "chosen", "rejected"}
    assert [row["label"] for row in preference_rows(query, Label(choice), LANGUAGE, "completions")[:3]] == [1, 0, 0]


def test_answers_of_the_teacher_go_out_and_come_back(tmp_path):
    envs = gym.make_vec("prefenvs/TextEnum-v0", num_envs=8, view="completion")
    feedback = prefenvs.feedback(envs)
    before, _ = envs.reset(seed=0, options={"prompt_id": np.repeat(np.arange(4), 2)})
    envs.action_space.seed(0)
    actions = envs.action_space.sample()
    after, _, terminated, truncated, infos = envs.step(actions)
    ids = infos["segment_id"]
    query = Query(prefenvs.Segments.of_step(before, actions, after, terminated, truncated, ids, "TextEnum"))
    label = feedback.ask(query)
    assert save_preferences(tmp_path / "pairs.jsonl", query, label, LANGUAGE) == (~label.tied).sum()
    read, _ = load_preferences(tmp_path / "pairs.jsonl", LANGUAGE)
    task = gym.make("prefenvs/TextEnum-v0", evaluation=True).unwrapped.task
    rewards = task.rewards(np.repeat(np.arange(4), 2), read.segments.actions[:, 0]).reshape(-1, 2)
    assert (rewards[:, 0] > rewards[:, 1]).all()


@pytest.fixture(scope="module")
def subwords():
    """The language of a byte-pair tokenizer, whose random tokens are no text it would write itself."""
    transformers = pytest.importorskip("transformers", reason="needs the text extra")
    tokenizers = pytest.importorskip("tokenizers", reason="needs the text extra")
    raw = byte_pairs(["tell me about the red fox and the river", "the old man and the sea"] * 5, ["<e>", "<p>", "<b>"])
    begin = tokenizers.processors.TemplateProcessing(single="<b> $A", special_tokens=[("<b>", 2)])
    raw.post_processor = begin
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<e>", pad_token="<p>", bos_token="<b>"
    )
    env = gym.make("prefenvs/TextOwn-v0", prompts=("tell me", "the sea"), tokenizer=tokenizer, max_new_tokens=8)
    return language_of(env)


def random_pairs(language, n=20):
    prompts = np.repeat(language.prompt_tokens, n, 0)
    tokens = np.random.default_rng(0).integers(language.vocab_size, size=(2 * n, language.max_new_tokens))
    return Query(completion_segments(prompts, tokens, language)), Label(one_hot(np.arange(n) % 2))


@pytest.mark.parametrize("kind", ["pairs", "completions"])
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_tokens_survive_where_their_text_is_cut_in_another_way(subwords, suffix, kind, tmp_path):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="needs the text extra")
    query, label = random_pairs(subwords)
    path = tmp_path / f"file{suffix}"
    save_preferences(path, query, label, subwords, kind)
    read, _ = load_preferences(path, subwords)
    order = np.stack([np.arange(20) * 2 + np.arange(20) % 2, np.arange(20) * 2 + 1 - np.arange(20) % 2], 1)
    same_texts(read, Query(query.segments[order.ravel()]), subwords)
    assert preference_rows(Query(read.segments), Label(one_hot(np.zeros(20, int))), subwords, kind) == preference_rows(
        query, label, subwords, kind
    )


def test_columns_of_tokens_are_written_where_they_are_needed_and_must_say_what_the_text_says(subwords):
    rows = preference_rows(*random_pairs(subwords), subwords)
    tokens = {"prompt_tokens", "chosen_tokens", "rejected_tokens"}
    assert all(set(row) == {"prompt", "chosen", "rejected", *tokens} for row in rows)
    assert rows[0]["prompt_tokens"][0] == 2, "prompts begin as the tokenizer begins them"
    query, label = preferences_of([{"prompt": "tell me", "chosen": "the fox", "rejected": " sea"}], subwords)
    assert set(preference_rows(query, label, subwords)[0]) == {"prompt", "chosen", "rejected"}
    for change, message in (
        ({"chosen": "the fox"}, "row 1, column 'chosen_tokens': the tokens say .* the text 'the fox'. Was it written"),
        ({"chosen_tokens": [5, -1]}, r"expected whole numbers in \[0, "),
        ({"chosen_tokens": "5"}, "expected list"),
        ({"rejected": "a" * 9, "rejected_tokens": subwords.encode("a") * 9}, "9 tokens, the language allows 8"),
    ):
        with pytest.raises(ValueError, match=message):
            preferences_of([{**rows[0], **change}], subwords)


def test_messages_are_read_as_their_contents():
    rows = [{"prompt": [{"role": "user", "content": "a b"}], "chosen": [{"role": "assistant", "content": "c"}],
             "rejected": [{"role": "assistant", "content": "b a"}]}]  # fmt: skip
    same_texts(preferences_of(rows, LANGUAGE)[0], preferences_of([GOOD], LANGUAGE)[0])
    with pytest.raises(ValueError, match=r"row 1, column 'prompt': .*a list of messages"):
        preferences_of([{**GOOD, "prompt": [{"role": "user"}]}], LANGUAGE)


def test_a_completion_ends_unless_it_fills_its_room():
    query, _ = preferences_of([{**GOOD, "chosen": "a b c a", "rejected": ""}], LANGUAGE)
    assert query.segments.actions[:, 0].tolist() == [[1, 2, 3, 1], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a b", "chosen": "c"}, "line 2, column 'rejected': missing"),
        ({**GOOD, "rejected": 5}, "line 2, column 'rejected': 5, expected str or list"),
        ({**GOOD, "chosen": "a z"}, "line 2, column 'chosen': 'z' is not a word"),
        ({**GOOD, "chosen": "a a a a a"}, "line 2, column 'chosen': 5 tokens, the language allows 4"),
        ({**GOOD, "prompt": None}, "line 2, column 'prompt': missing"),
        ([1], "line 2: .*expected an object"),
    ],
)
def test_damaged_rows_are_named_by_line_and_column(row, message, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{json.dumps(row)}\n")
    with pytest.raises(DamagedFile, match=message):
        load_preferences(path, LANGUAGE)


def test_files_that_are_none_say_so(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(f'{json.dumps(GOOD)}\n{{"prompt": "a\n')
    with pytest.raises(DamagedFile, match=r"pairs.jsonl, line 2, column 12: no JSON"):
        load_preferences(path, LANGUAGE)
    path.write_bytes(b'{"prompt": "\xff"}')
    with pytest.raises(DamagedFile, match="line 1, column 13: no UTF-8"):
        load_preferences(path, LANGUAGE)
    path.write_text("")
    with pytest.raises(DamagedFile, match="no rows"):
        load_preferences(path, LANGUAGE)
    with pytest.raises(ValueError, match=r"ends in '.csv', expected .jsonl or .parquet"):
        load_preferences(tmp_path / "pairs.csv", LANGUAGE)
    pytest.importorskip("pyarrow", reason="needs the text extra")
    (tmp_path / "pairs.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DamagedFile, match="cannot be read as parquet"):
        load_preferences(tmp_path / "pairs.parquet", LANGUAGE)


def test_what_cannot_be_written_is_refused_and_leaves_no_file(tmp_path):
    query, label = asked(winners=np.full(6, -1))
    with pytest.raises(ValueError, match="every question was skipped or tied"):
        save_preferences(tmp_path / "pairs.jsonl", query, label, LANGUAGE)
    with pytest.raises(ValueError, match="Did you mean 'pairs'"):
        preference_rows(query, label, LANGUAGE, "pair")
    with pytest.raises(ValueError, match="expected answers"):
        preference_rows(query, Label(np.full((6, 2), 0.5), soft=True), LANGUAGE)
    with pytest.raises(ValueError, match="column 'label': missing"):
        preferences_of([{"prompt": "a b", "completion": "c"}], LANGUAGE)
    with pytest.raises(ValueError, match="column 'margin': True, expected int or float"):
        preferences_of([{**GOOD, "margin": True}], LANGUAGE)
    assert not list(tmp_path.iterdir())


def test_parquet_without_pyarrow_names_the_extra_and_jsonl_needs_none(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"prefenvs\[text\]"):
        save_preferences(tmp_path / "pairs.parquet", *asked(), LANGUAGE)
    assert save_preferences(tmp_path / "pairs.jsonl", *asked(), LANGUAGE) == 6


def test_jsonl_loads_neither_torch_nor_pyarrow():
    code = "import sys, prefenvs.text_dataset; assert not {'torch', 'pyarrow', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
