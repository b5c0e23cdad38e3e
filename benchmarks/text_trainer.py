"""Training steps a second of DPO on a small GPT-2, ours, its bare computation and TRL's DPOTrainer; and of GRPO.

    make bench-trl                                # once, for TRL: an environment of its own
    python benchmarks/text_trainer.py             # 2 layers of 128, 64 pairs a step, one thread; a few minutes
    python benchmarks/text_trainer.py --pairs 2 --steps 20
    python benchmarks/text_trainer.py --method grpo
    python benchmarks/text_trainer.py --device cuda --out docs/results/text_trainer-cuda.json

All have the same weights, pairs, batch and precomputed reference log-probabilities; logging is each one's default.
`prefenvs` trains GPT2LMHeadModel as TRL does, `prefenvs, Decoder` our own module of the same network. The floor of both
is a loop over one batch of as many pairs with nothing but forward, loss, backward, clipping and Adam's step: no
shuffling, no masks, no metrics, no log. Each program is one process; they run in turns.

A step of GRPO writes 64 completions of TextSentiment and learns from their true reward. Its floor writes as many, reads
them by policy and reference, and does forward, loss, backward, clipping and Adam's step: no environment, no reward, no
advantages, no log. There is no peer: TRL's GRPOTrainer writes by `generate` (benchmarks/text_generation.py).
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from _alternate import RESULTS, ROOT, alternate, gpu, report, serve

TRL = ROOT / ".venv-trl" / "bin" / "python"
WORDS, PROMPT, NEW, KNOWN, BATCH, WARM = 512, 8, 24, 1024, 64, 5
RATE, BETA, LONGEST_GRADIENT = 1e-4, 0.1, 1.0
STILL = 1e-9  # GRPO's rate: completions keep the length that they have


def pairs_of(known: int) -> tuple[np.ndarray, np.ndarray]:
    """Prompts (known, P) and completions (known, 2, T) of random words; token 0 ends them."""
    rng = np.random.default_rng(0)
    prompts, both = rng.integers(1, WORDS, (known, PROMPT)), rng.integers(1, WORDS, (known, 2, NEW))
    both[..., -1] = 0
    return prompts, both


def words() -> Any:
    """A tokenizer whose tokens are words; token 0 ends and pads."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = {word: i for i, word in enumerate(["<end>", *map(str, range(1, WORDS))])}
    splitter = Tokenizer(models.WordLevel(known, unk_token="<end>"))
    splitter.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=splitter, eos_token="<end>", pad_token="<end>")


def ours(kind: str, steps: int, device: str) -> Callable[[], dict]:
    """Measures DirectAlignment and its floor."""
    import gymnasium as gym
    import torch

    import prefenvs  # noqa: F401 (registers the tasks)
    from prefenvs.agents.text.direct import DirectAlignment, DirectConfig
    from prefenvs.agents.text.preference_pairs import PreferencePairs
    from prefenvs.tasks.text.lm import Decoder, TransformersModel, as_gpt2

    policy: Any = Decoder(WORDS, PROMPT + NEW)
    if kind == "prefenvs":
        policy = TransformersModel(as_gpt2(policy), eos=0, pad=0)
    prompts, both = (torch.from_numpy(array) for array in pairs_of(KNOWN))
    pairs = PreferencePairs(prompts, both[:, 0], both[:, 1], torch.ones(KNOWN))
    settings = DirectConfig(
        learning_rate=RATE, max_grad_norm=LONGEST_GRADIENT, batch_size=BATCH, options={"beta": BETA}
    )
    tokenizer = words()
    envs = gym.make_vec(
        "prefenvs/TextOwn-v0",
        num_envs=1,
        view="completion",
        prompts=tokenizer.batch_decode(prompts),
        tokenizer=tokenizer,
        max_new_tokens=NEW,
    )
    learner = DirectAlignment(policy, envs, loss="dpo", config=settings, pairs=pairs, device=device)
    learner.learn(WARM * BATCH)
    tokens = both[:BATCH].transpose(0, 1).flatten(0, 1)
    step = bare(copy.deepcopy(policy), prompts[:BATCH].repeat(2, 1).to(device), tokens.to(device))
    return beside_floor(learner, step, steps)


def beside_floor(learner: Any, step: Callable[[], None], steps: int) -> Callable[[], dict]:
    """Measures so many steps of a learner, and its floor: half of that before and half after."""

    def measure() -> dict:
        floor = seconds(lambda: [step() for _ in range(steps // 2)])
        trained = seconds(lambda: learner.learn(steps * BATCH))
        floor += seconds(lambda: [step() for _ in range(steps // 2)])
        return {"steps a second": steps / trained, "floor, steps a second": steps // 2 * 2 / floor}

    return measure


def ours_online(kind: str, steps: int, device: str) -> Callable[[], dict]:
    """Measures GRPO and its floor."""
    import gymnasium as gym
    import torch

    import prefenvs  # noqa: F401 (registers the tasks)
    from prefenvs.agents.text.grpo import GRPO, GRPOConfig
    from prefenvs.tasks.text import language_of
    from prefenvs.tasks.text.lm import Decoder, TransformersModel, as_gpt2

    envs = gym.make_vec("prefenvs/TextSentiment-v0", num_envs=BATCH, view="completion", evaluation=True)
    language = language_of(envs)
    policy: Any = Decoder(len(language.words), language.prompt_tokens.shape[1] + language.max_new_tokens)
    if kind == "prefenvs":
        policy = TransformersModel(as_gpt2(policy), eos=language.eos, pad=language.pad)
    settings = GRPOConfig(learning_rate=STILL, max_grad_norm=LONGEST_GRADIENT)
    learner = GRPO(policy, envs, config=settings, device=device)
    learner.learn(WARM * BATCH)
    rows = torch.arange(BATCH) % len(language.prompt_tokens)
    prompts = torch.from_numpy(language.prompt_tokens)[rows].to(device)
    step = bare_online(copy.deepcopy(policy), prompts, language.max_new_tokens)
    return beside_floor(learner, step, steps)


def bare_online(policy: Any, prompts: Any, new: int) -> Callable[[], None]:
    """One step that completes (n, P) prompts and learns that they are alike."""
    import torch

    reference, rng = copy.deepcopy(policy), torch.Generator(prompts.device).manual_seed(0)
    optimizer = torch.optim.Adam(policy.parameters(), lr=STILL)

    def step() -> None:
        with torch.no_grad():
            tokens = policy.sample(prompts, new, rng).tokens
            before, theirs = policy.logprobs(prompts, tokens), reference.logprobs(prompts, tokens)
        logps = policy.logprobs(prompts, tokens)
        ratio, gap = (logps - before).exp(), theirs - logps
        loss = (0.04 * (gap.exp() - gap - 1) - torch.minimum(ratio, ratio.clamp(0.8, 1.2))).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), LONGEST_GRADIENT)
        optimizer.step()

    return step


def bare(policy: Any, prompts: Any, tokens: Any) -> Callable[[], None]:
    """One step on completions (2n, T), the chosen ones first."""
    import torch
    from torch.nn import functional as F

    from prefenvs.tasks.text.lm import token_logprobs

    optimizer = torch.optim.Adam(policy.parameters(), lr=RATE)
    with torch.no_grad():
        chosen, rejected = policy.logprobs(prompts, tokens).sum(-1).chunk(2)
    reference = chosen - rejected

    def step() -> None:
        chosen, rejected = token_logprobs(policy.logits(prompts, tokens), tokens).sum(-1).chunk(2)
        loss = -F.logsigmoid(BETA * (chosen - rejected - reference)).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), LONGEST_GRADIENT)
        optimizer.step()

    return step


def theirs(folder: Path, steps: int, device: str) -> Callable[[], dict]:
    """Measures TRL's DPOTrainer on the model in a folder, from the end of its first steps to the end of its last."""
    from datasets import Dataset
    from transformers import GPT2LMHeadModel, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    class Clock(TrainerCallback):
        times: tuple[float, ...] = ()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step in (WARM, WARM + steps):
                self.times = (*self.times, time.perf_counter())

    tokenizer, (prompts, both) = words(), pairs_of(KNOWN)
    texts = [tokenizer.batch_decode(rows) for rows in (prompts, both[:, 0], both[:, 1])]
    columns = {"prompt": texts[0], "chosen": [f" {t}" for t in texts[1]], "rejected": [f" {t}" for t in texts[2]]}
    settings = DPOConfig(
        str(folder / "trl"),
        per_device_train_batch_size=BATCH,
        max_steps=WARM + steps,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        beta=BETA,
        max_grad_norm=LONGEST_GRADIENT,
        precompute_ref_log_probs=True,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=device == "cpu",
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    clock = Clock()
    trainer = DPOTrainer(
        GPT2LMHeadModel.from_pretrained(folder),
        args=settings,
        train_dataset=Dataset.from_dict(columns),
        processing_class=tokenizer,
        callbacks=[clock],
    )

    def measure() -> dict:
        clock.times = ()
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the measurements
            trainer.train()
        began, ended = clock.times
        return {"steps a second": steps / (ended - began)}

    return measure


def seconds(do: Callable[[], Any]) -> float:
    """How long it takes, to the end of a GPU's work."""
    import torch

    before = time.perf_counter()
    do()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - before


def worker(name: str, method: str, folder: Path, steps: int, device: str) -> None:
    """Measure one program."""
    import torch

    torch.set_num_threads(1)
    packages = ("torch", "transformers", *(["trl"] if name == "TRL" else []))
    own = ours if method == "dpo" else ours_online
    measure = theirs(folder, steps, device) if name == "TRL" else own(name, steps, device)
    serve(measure, {package: version(package) for package in packages} | gpu(device))


def main() -> None:
    """Run the programs in turns and write docs/results/text_trainer.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8, help="measurements of each program (default 8)")
    parser.add_argument("--steps", type=int, default=40, help="training steps a measurement (default 40)")
    parser.add_argument("--device", default="cpu", help="of all programs (default cpu)")
    parser.add_argument("--method", choices=("dpo", "grpo"), default="dpo")
    parser.add_argument(
        "--out", type=Path, help="JSON file for the measurements (default docs/results/text_trainer[-grpo].json)"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given.worker, given.method, given.folder, given.steps, given.device)
        return
    out = given.out or RESULTS / f"text_trainer{'' if given.method == 'dpo' else '-grpo'}.json"
    from prefenvs.tasks.text.lm import Decoder, as_gpt2

    pythons = {"prefenvs": sys.executable, "prefenvs, Decoder": sys.executable}
    if given.method == "dpo" and TRL.exists():
        pythons["TRL"] = str(TRL)
    elif given.method == "dpo":
        print(f"{TRL} is not there, so TRL is left out: `make bench-trl` makes it.", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        as_gpt2(Decoder(WORDS, PROMPT + NEW)).save_pretrained(folder)
        arguments = [
            "--folder",
            folder,
            "--steps",
            str(given.steps),
            "--method",
            given.method,
            "--device",
            given.device,
        ]
        commands = {name: [python, __file__, "--worker", name, *arguments] for name, python in pythons.items()}
        found = alternate(commands, given.pairs)
    report(out, found, "steps a second", "prefenvs", given.pairs)
    for name in ("prefenvs", "prefenvs, Decoder"):
        shares = [r["steps a second"] / r["floor, steps a second"] for r in found[name]["rounds"]]
        print(f"share of the floor's rate that {name} reaches: median {np.median(shares):.2f}")


if __name__ == "__main__":
    main()
