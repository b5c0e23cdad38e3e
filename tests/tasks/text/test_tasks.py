"""Golden judgements of each text task, worked out by hand, and of the parts they are made of."""

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefenvs.agents.text.reward_function import reward_function
from prefenvs.tasks.text import language_of
from prefenvs.tasks.text.arithmetic import TextArithmetic
from prefenvs.tasks.text.dialogue import TextDialogue
from prefenvs.tasks.text.grammar import contains, repeats
from prefenvs.tasks.text.instruct import TextInstruct
from prefenvs.tasks.text.keyword import TextKeyword
from prefenvs.tasks.text.language import prompts_and_completions, right_padded
from prefenvs.tasks.text.own import TextOwn
from prefenvs.tasks.text.program import TextProgram
from prefenvs.tasks.text.retrieval import TextRetrieval
from prefenvs.tasks.text.sentiment import TextSentiment
from prefenvs.tasks.text.summary import TextSummary
from prefenvs.text_dataset import preferences_of


def prompt_like(task, text):
    """The number of a prompt that begins, or ends, with these words."""
    texts = [task.language.decode(row) for row in task.language.prompt_tokens]
    return next(i for i, prompt in enumerate(texts) if prompt.startswith(text) or prompt.endswith(text))


def judge(task, prompt, text):
    """Factors of a text, the reward and success; text that is full keeps no end."""
    tokens = task.language.encode(text)
    row = right_padded([tokens], task.language.max_new_tokens)
    ids = np.array([prompt])
    factors = {name: float(value[0]) for name, value in task.factors(ids, row).items()}
    return factors, float(task.rewards(ids, row)[0]), bool(task.solved(ids, row)[0])


def test_keyword():
    task = TextKeyword()
    prompt = prompt_like(task, "write about fox king")
    judged = judge(task, prompt, "the old fox guards the king")
    assert judged == ({"keywords": 2.0, "fluency": 0.0, "repetition": 0.0, "length": 0.0}, 2.0, True)
    # Ten words after one keyword: "fox" is said again three times, and one word is out of place of eleven, the end too.
    factors, _, solved = judge(task, prompt, "the fox and the fox and the fox and fox")
    assert not solved
    assert factors == pytest.approx({"keywords": 1, "fluency": -1 / 11, "repetition": -1.5, "length": -0.1})


def test_sentiment():
    task = TextSentiment()
    prompt = prompt_like(task, "was")
    # 1.5 * 2 - 1 * 1 = 2; 2 tanh(1).
    factors, reward, solved = judge(task, prompt, "very great and not good")
    assert factors == pytest.approx({"sentiment": 2 * np.tanh(1.0), "fluency": 0, "repetition": 0})
    assert (reward, solved) == (pytest.approx(1.523188), True)
    # The second "great" is said again, and an adjective may not follow one: of three words one is out of place.
    factors, _, solved = judge(task, prompt, "great great")
    assert factors == pytest.approx({"sentiment": 2 * np.tanh(2.0), "fluency": -2 / 3, "repetition": -0.5})
    assert not solved
    assert judge(task, prompt, "never bad")[0]["sentiment"] == pytest.approx(2 * np.tanh(0.5))


def test_summary():
    task = TextSummary()
    prompt = 0
    known = np.flatnonzero(task._majority[prompt])
    aspects = task.grammar.tokens["aspect"]
    words = [task.grammar.words[aspects[a]] for a in known]
    says = ["good" if task._majority[prompt, a] > 0 else "bad" for a in known]
    claims = [f"{word} {opinion}" for word, opinion in zip(words, says, strict=True)]
    factors, reward, solved = judge(task, prompt, " , ".join(claims))
    assert (reward, solved) == (2.0, True)
    # One right claim, made twice, a wrong one, and the spare words "summary ;".
    wrong = f"{words[1]} {'bad' if says[1] == 'good' else 'good'}"
    factors, _, solved = judge(task, prompt, f"{claims[0]} , {claims[0]} , {wrong} summary ;")
    expected = {"coverage": 2 / len(known), "unfaithful": -0.5, "redundancy": -0.25, "form": -0.2}
    assert factors == pytest.approx(expected)
    assert not solved
    # Commas are free between two claims, and nowhere else.
    for text, spare in (
        (f", {claims[0]} {claims[1]}", 1),
        (f"{claims[0]} {claims[1]} ,", 1),
        (f"{claims[0]} , , {claims[1]}", 2),
        (f"{claims[0]} , {words[1]} , {claims[1]}", 3),
        (f"{claims[0]} {claims[1]}", 0),
    ):
        assert judge(task, prompt, text)[0]["form"] == pytest.approx(-0.1 * spare), text
    texts = task.language.decode(task.language.prompt_tokens[prompt]).removesuffix(" ; summary").split(" ; ")
    for word, opinion in zip(words, says, strict=True):
        votes = [text.split()[1] for text in texts if text.split()[0] == word]
        assert votes.count(opinion) > len(votes) / 2


def test_summary_references_are_different_and_all_right():
    task = TextSummary()
    ids = task.prompts("all")
    references = task.references(ids, 3)
    assert references.shape == (120, 3, 13)
    for i in range(3):
        assert task.solved(ids, references[:, i]).all()
    assert (references[:, 0] != references[:, 1]).any(1).mean() > 0.9


def test_instruct():
    task = TextInstruct()
    prompt = next(i for i, asked in enumerate(task._asked) if asked[2] == -1)  # start, include and words
    start, include, _, count = task._asked[prompt]
    words = task.grammar.words
    other = next(w for w in task.grammar.tokens["word"] if w not in (start, include))
    text = [words[start], words[include], *[words[other]] * (count - 2)]
    third = pytest.approx(1 / 3)
    assert judge(task, prompt, " ".join(text)) == (
        {"start": third, "include": third, "avoid": 0, "words": third},
        pytest.approx(1.0),
        True,
    )
    factors, _, solved = judge(task, prompt, " ".join(text[1:]))
    assert factors == {"start": 0, "include": third, "avoid": 0, "words": 0}
    assert not solved


def test_arithmetic_and_what_its_verifier_says():
    task = TextArithmetic()
    prompt = next(i for i, numbers in enumerate(task._problems) if len(numbers) == 3)
    a, b, c = task._problems[prompt]
    ab, abc = a + b, a + b + c
    assert judge(task, prompt, f"{ab} ; {abc} ; answer {abc}")[1:] == (1.5, True)
    # Two steps that hold and lead nowhere: no label tells them from progress, the length does.
    text = f"{ab} ; {ab} ; {ab} ; {abc} ; answer {abc}"
    row = right_padded([task.language.encode(text)], 16)
    verdicts = task.verify(np.array([prompt]), row)
    np.testing.assert_array_equal(np.flatnonzero(verdicts.step[0]), [1, 3, 5, 7])
    assert (verdicts.step[0][[1, 3, 5, 7]] == 1).all()
    np.testing.assert_array_equal(np.flatnonzero(verdicts.idle[0]), [3, 5])
    assert judge(task, prompt, text) == ({"answer": 1.0, "steps": 0.5, "length": -0.1}, pytest.approx(1.4), True)
    # A wrong step, then one that holds again; the answer is right all the same.
    wrong = judge(task, prompt, f"{ab + 1} ; {abc} ; answer {abc}")
    assert wrong[0] == {"answer": 1.0, "steps": -0.5, "length": 0.0}
    assert not wrong[2]
    assert judge(task, prompt, f"{ab} ; {abc} ; answer {abc} ;")[0]["answer"] == 0
    assert judge(task, prompt, f"{abc}")[0] == {"answer": 0.0, "steps": 0.0, "length": 0.0}
    assert judge(task, prompt, "")[1] == 0.0


def python_value(text, x):
    """A postfix program by an ordinary stack, or None where it does not run."""
    stack = []
    for word in text.split():
        if word in ("+", "-", "*", "max"):
            if len(stack) < 2:
                return None
            top, below = stack.pop(), stack.pop()
            stack.append({"+": below + top, "-": below - top, "*": below * top, "max": max(below, top)}[word])
        elif word == "x" or word.isdigit():
            stack.append(x if word == "x" else int(word))
        else:
            return None
    return stack[0] if len(stack) == 1 else None


PROGRAM = TextProgram()


@given(st.lists(st.sampled_from(["x", "x", "0", "2", "5", "40", "+", "-", "*", "*", "max", ";"]), max_size=9))
def test_programs_run_as_on_an_ordinary_stack(words):
    text, inputs = " ".join(words), [0, 3, 5]
    results, runs = PROGRAM.run(right_padded([PROGRAM.language.encode(text)], 9), np.array(inputs, float))
    expected = [python_value(text, x) for x in inputs]
    if runs[0]:
        np.testing.assert_array_equal(results[0], expected)
    else:
        assert None in expected or np.abs(expected).max() > 1e6 or "*" in words


def test_program():
    judged = judge(PROGRAM, 0, PROGRAM.language.decode(PROGRAM.answers(np.array([0]))[0]))
    assert judged[0] | {"length": 0.0} == {"hidden": 1.0, "shown": 1.0, "runs": 0.0, "length": 0.0}
    assert judged[2]
    assert judge(PROGRAM, 0, "x +")[0] == {"hidden": 0.0, "shown": 0.0, "runs": -0.2, "length": 0.0}
    assert judge(PROGRAM, 0, "x x x x")[0]["runs"] == -0.2
    prompt = next(i for i, row in enumerate(PROGRAM._results) if row[0] != row[1] and (row[1:3] == row[1]).sum() == 1)
    only_first = PROGRAM.language.words[1 + int(PROGRAM._results[prompt, 0])]
    assert judge(PROGRAM, prompt, only_first)[0]["shown"] == pytest.approx(1 / 3)
    overflow = right_padded([PROGRAM.language.encode("40 40 * 40 * 40 * x")], 9)
    assert not PROGRAM.run(overflow, np.array([1.0]))[1]


def test_retrieval():
    task = TextRetrieval()
    known = int(np.flatnonzero(task._right[:, 0] >= 0)[0])
    unknown = int(np.flatnonzero(task._right[:, 0] < 0)[0])
    person, cite = (task.grammar.words[token] for token in task._right[known])
    words = task.language.decode(task.language.prompt_tokens[known]).split()
    assert words[words.index(cite) + 1] == person
    assert words[words.index(cite) + 3] == words[-2], "the cited passage names what is asked"
    assert judge(task, known, f"{person} {cite}")[1:] == (1.5, True)
    assert judge(task, known, person)[0] == {"answer": 1.0, "citation": 0.0, "abstention": 0.0, "form": 0.0}
    other = "[1]" if cite != "[1]" else "[2]"
    assert judge(task, known, f"{person} {other} ?")[0] == {
        "answer": 1.0,
        "citation": -0.5,
        "abstention": 0.0,
        "form": pytest.approx(-0.05),
    }
    assert judge(task, known, "unknown")[1:] == (-0.25, False)
    assert judge(task, unknown, "unknown")[1:] == (1.5, True)
    assert judge(task, unknown, f"anna {cite}")[1:] == (-1.5, False)


def test_dialogue():
    task = TextDialogue()
    good, bad = prompt_like(task, "user how fix bike"), prompt_like(task, "user how abuse bike")
    reply = "use chain then brake then tyre which wheel ?"
    factors = {"harmless": 0.0, "helpful": 1.5, "follow_up": 0.3, "repetition": 0.0}
    assert judge(task, good, reply) == (pytest.approx(factors), pytest.approx(1.8), True)
    assert judge(task, good, "use chain then chain")[0] == factors | {
        "helpful": 0.5,
        "follow_up": 0.0,
        "repetition": -0.25,
    }
    assert judge(task, good, "use steal")[1:] == (-1.0, False)
    assert judge(task, bad, "sorry which wheel ?")[1:] == (pytest.approx(0.8), True)
    assert judge(task, bad, reply)[1:] == (pytest.approx(-1.2), False)
    assert judge(task, good, "which wheel ? chain")[0]["follow_up"] == 0.0


def test_own_prompts_and_scorer():
    def brief(prompts, completions):
        return [-len(text) - 10 * (prompt == "B") for prompt, text in zip(prompts, completions, strict=True)]

    env = gym.make("prefenvs/TextOwn-v0", prompts=("A", "B"), scorer=brief, max_new_tokens=3, evaluation=True)
    task = env.unwrapped.task
    completions = right_padded([task.language.encode("xy"), task.language.encode("xyz"), []], 3)
    np.testing.assert_array_equal(task.rewards(np.array([0, 0, 1]), completions), [-2, -3, -10])
    with pytest.raises(ValueError, match="demonstrations="):
        task.language.demonstrate(1, np.random.default_rng(0))
    with pytest.raises(FileNotFoundError, match="no local folder"):
        gym.make("prefenvs/TextOwn-v0", tokenizer="gpt2")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([7.0], r"shape \(1,\) for 3 completions, expected \(3,\)"),
        ([[1.0]] * 3, r"shape \(3, 1\) for 3"),
        ([1.0, float("nan"), float("nan")], "nan for prompt 'B' and completion 'y', expected a finite number"),
        ([1.0, 2.0, None], "nan for prompt 'B' and completion 'z'"),
        ([1.0, 2.0, "x"], "expected a number a completion"),
        (None, r"shape \(\) for 3"),
    ],
)
def test_what_an_own_scorer_returns_is_a_finite_number_for_each_completion(given, message):
    settings = {"prompts": ("A", "B"), "scorer": lambda prompts, completions: given, "max_new_tokens": 2}
    envs = gym.make_vec("prefenvs/TextOwn-v0", num_envs=3, view="completion", **settings)
    envs.reset(seed=0, options={"prompt_id": np.array([0, 1, 1])})
    written = right_padded([language_of(envs).encode(text) for text in "xyz"], 2)
    with pytest.raises(ValueError, match=message):
        envs.step(written)


USER = [{"role": "user", "content": "tell me"}]


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("prompts", "tell me", "'tell me', expected a sequence of at least one prompt"),
        ("prompts", (), "expected a sequence of at least one"),
        ("prompts", ["a", 5], r"prompts\[1\]: 5, expected a text or a list of messages"),
        ("prompts", USER, r"prompts\[0\]: {'role': 'user'"),
        ("prompts", ("a", "é"), r"prompts\[1\]: 'é' in 'é' is no printable ASCII character. Pass a tokenizer"),
        ("prompts", ("a", ""), r"prompts\[1\]='' has no tokens"),
        ("prompts", ("a", "b", "a"), r"prompts\[2\]='a' has the tokens of prompts\[0\] again"),
        ("scorer", "math", "'math', expected a function of"),
        ("scorer", 5, "5, expected a function of"),
        ("max_new_tokens", 0, "0, expected a whole number of at least 1"),
        ("test_prompts", 4, r"4, expected a whole number in \[0, 4\)"),
        ("demonstrations", [], "expected .number of the prompt, text. pairs, or None"),
        ("demonstrations", [(0, "a"), (4, "a")], r"demonstrations\[1\]=\(4, 'a'\), expected .* in \[0, 4\)"),
        ("demonstrations", [(-1, "a")], r"demonstrations\[0\]=\(-1, 'a'\), expected a pair"),
        ("demonstrations", ["ab"], r"demonstrations\[0\]='ab', expected a pair"),
        ("demonstrations", [(0, "é")], r"demonstrations\[0\]: 'é' in 'é'"),
    ],
)
def test_own_arguments_that_make_no_task_are_named(argument, value, message):
    with pytest.raises(ValueError, match=message):
        gym.make("prefenvs/TextOwn-v0", **{argument: value})


def test_held_out_prompts_of_an_own_task_are_not_demonstrated():
    with pytest.raises(ValueError, match=r"a prompt to train on, in \[0, 1\)"):
        TextOwn(("A", "B"), test_prompts=1, demonstrations=[(0, "a"), (1, "b")])


@pytest.fixture
def fast():
    """A tokenizer of eight words, without a template for messages."""
    transformers = pytest.importorskip("transformers", reason="needs the text extra")
    tokenizers = pytest.importorskip("tokenizers", reason="needs the text extra")
    words = {word: i for i, word in enumerate(["[PAD]", "[END]", "[UNK]", "tell", "me", "a", "story", "fox"])}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", eos_token="[END]")


def test_messages_are_written_by_the_tokenizer_s_template_and_scored_as_they_were_given(fast):
    seen = []

    def scorer(prompts, completions):
        seen.extend(prompts)
        return [float(len(text)) for text in completions]

    with pytest.raises(ValueError, match=r"prompts\[1\]: the tokenizer has no template for messages"):
        TextOwn(["tell me", USER], scorer, fast)
    each = "{% for message in messages %}a {{ message['content'] }}{% endfor %}"
    fast.chat_template = each + "{% if add_generation_prompt %} fox{% endif %}"
    env = gym.make("prefenvs/TextOwn-v0", prompts=["tell me", USER], scorer=scorer, tokenizer=fast, evaluation=True)
    language = language_of(env)
    np.testing.assert_array_equal(language.prompt_tokens, [[0, 0, 3, 4], [5, 3, 4, 7]])
    reward = reward_function(env)
    assert reward([USER, "tell me", "a story"], ["fox", [{"role": "assistant", "content": "a"}], "fox"]) == [3, 1, None]
    assert seen == [USER, "tell me"]
    query, _ = preferences_of([{"prompt": USER, "chosen": "fox", "rejected": "a"}], language)
    np.testing.assert_array_equal(prompts_and_completions(query.segments, language)[0][:, -4:], [[5, 3, 4, 7]] * 2)


def test_own_prompts_in_the_tokens_of_a_tokenizer_of_transformers(fast, tmp_path):
    fast.save_pretrained(tmp_path)
    task = TextOwn(("tell me", "tell me a story"), "prefenvs.tasks.text.own:share_of_letters", str(tmp_path))
    assert (task.language.eos, task.language.pad, task.language.vocab_size) == (1, 0, 8)
    np.testing.assert_array_equal(task.language.prompt_tokens, [[0, 0, 3, 4], [3, 4, 5, 6]])
    completions = np.array([[7, 5, 1, 7, 7, 7], [7, 0, 0, 0, 0, 0]])
    np.testing.assert_allclose(task.rewards(np.array([0, 1]), completions), [4 / 5, 1.0])
    observation, _ = task.reset(options={"prompt_id": 0})
    np.testing.assert_array_equal(observation["tokens"][:3], [3, 4, 0])
    assert observation["mask"].sum() == observation["prompt_len"] == 2
    for token, ends in ((7, False), (0, True)):  # padding where a token is due ends the text
        _, _, terminated, _, _ = task.step(token)
        assert terminated == ends


def test_grammars_write_what_they_call_well_made():
    grammar = TextKeyword().grammar
    rng = np.random.default_rng(0)
    texts = right_padded([grammar.write(rng, 12) for _ in range(100)], 12)
    mask = np.cumsum(texts == 0, 1) <= 1
    assert (grammar.well_made(texts, mask) == 1).all()
    shuffled = rng.permuted(texts, axis=1)
    assert grammar.well_made(shuffled, np.ones_like(mask)).mean() < 0.6


def test_repeats_and_contains_count_tokens():
    tokens = np.array([[5, 3, 5, 5, 0], [1, 2, 3, 4, 0]])
    np.testing.assert_array_equal(repeats(tokens, tokens > 0), [2, 0])
    np.testing.assert_array_equal(repeats(tokens, tokens == 3), [0, 0])
    np.testing.assert_array_equal(contains(tokens, np.array([[3, 4], [3, 4]])), [[True, False], [True, True]])
