"""Tokens a second of our decoder and of our loop around transformers, against transformers' own generate.

    python benchmarks/text_generation.py                        # 2 layers of 128, batches of 1 and 64; a few minutes
    python benchmarks/text_generation.py --pairs 4 --seconds 1

All arms have the same network and the same weights, draw 24 tokens after a prompt of 8 by plain sampling with no end
token, and live in processes of their own; only one works at a time, A B B A. A pair's ratio is A's rate over B's; the
table gives the median over pairs with a bootstrap interval. `decoder` is ours, `adapter` is TransformersModel around
GPT2LMHeadModel, `generate` is that model's own method.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

from env_steps import alternate, summary

ROOT = Path(__file__).resolve().parent.parent
WORDS, PROMPT, NEW = 512, 8, 24


def generator(kind: str, layers: int, width: int, batch: int):
    """A function that writes `batch` completions."""
    import torch

    from prefenvs.tasks.text.lm import Decoder, TransformersModel, as_gpt2

    decoder = Decoder(WORDS, PROMPT + NEW, layers=layers, width=width)
    prompts = torch.randint(1, WORDS, (batch, PROMPT), generator=torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(1)
    if kind == "generate":
        theirs = as_gpt2(decoder)
        theirs.generation_config.eos_token_id = None
        settings = {"do_sample": True, "top_k": 0, "max_new_tokens": NEW, "pad_token_id": 0}
        return lambda: theirs.generate(prompts, attention_mask=torch.ones_like(prompts), **settings)
    never = -1  # no token ends a completion
    model = decoder if kind == "decoder" else TransformersModel(as_gpt2(decoder), eos=never, pad=0)
    model.eos = never
    return lambda: model.sample(prompts, NEW, rng)


def serve(pipe, kind: str, layers: int, width: int, batch: int, threads: int) -> None:
    """Measure whenever asked to, for so many seconds; answers tokens a second."""
    import torch

    torch.set_num_threads(threads)
    with torch.no_grad():
        write = generator(kind, layers, width, batch)
        for _ in range(3):
            write()
        pipe.send("ready")
        while (seconds := pipe.recv()) is not None:
            written, began = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - began) < seconds:
                write()
                written += batch * NEW
            pipe.send(written / elapsed)


class Arm:
    """A process that generates when asked to."""

    def __init__(self, *arguments) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, *arguments))
        self.process.start()
        assert self.pipe.recv() == "ready"

    def rate(self, seconds: float) -> float:
        """Tokens a second."""
        self.pipe.send(seconds)
        return self.pipe.recv()

    def close(self) -> None:
        """End the process."""
        self.pipe.send(None)
        self.process.join()


def compare(settings: argparse.Namespace, batch: int) -> list[dict]:
    """Both of ours against transformers at one batch size."""
    shape = (settings.layers, settings.width, batch, settings.threads)
    peer, rows = Arm("generate", *shape), []
    for kind in ("decoder", "adapter"):
        ours = Arm(kind, *shape)
        pair = (lambda arm=ours: arm.rate(settings.seconds), lambda: peer.rate(settings.seconds))
        rows.append({"kind": kind, "batch": batch, **summary(alternate(*pair, settings.pairs))})
        ours.close()
    peer.close()
    return rows


def table(rows: list[dict]) -> str:
    """As markdown."""
    lines = [
        "| ours | batch | ours, tokens/s | generate, tokens/s | ratio | 95% interval |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {r['kind']} | {r['batch']} | {r['ours']:,.0f} | {r['theirs']:,.0f} | {r['ratio']:.2f} "
        f"| {r['low']:.2f} to {r['high']:.2f} |"
        for r in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a measurement")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of torch, for all arms")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "text_generation.json")
    settings = parser.parse_args()
    rows = [row for batch in settings.batches for row in compare(settings, batch)]
    results = {
        "machine": {"cores": os.cpu_count(), "threads": settings.threads, "processor": platform.machine()},
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "model": {"layers": settings.layers, "width": settings.width, "words": WORDS, "prompt": PROMPT, "new": NEW},
        "seconds": settings.seconds,
        "comparisons": rows,
    }
    settings.out.write_text(json.dumps(results, indent=1), encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
