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
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from _alternate import RESULTS, alternate, gpu, machine, ratio, serve

WORDS, PROMPT, NEW = 512, 8, 24


def generator(kind: str, layers: int, width: int, batch: int, device: str):
    """A function that writes `batch` completions."""
    import torch

    from prefenvs.tasks.text.lm import Decoder, TransformersModel, as_gpt2

    decoder = Decoder(WORDS, PROMPT + NEW, layers=layers, width=width).to(device)
    prompts = torch.randint(1, WORDS, (batch, PROMPT), generator=torch.Generator().manual_seed(0)).to(device)
    rng = torch.Generator(device).manual_seed(1)
    if kind == "generate":
        theirs = as_gpt2(decoder).to(device)
        theirs.generation_config.eos_token_id = None
        settings = {"do_sample": True, "top_k": 0, "max_new_tokens": NEW, "pad_token_id": 0}
        return lambda: theirs.generate(prompts, attention_mask=torch.ones_like(prompts), **settings)
    never = -1  # no token ends or pads a completion
    model = decoder if kind == "decoder" else TransformersModel(as_gpt2(decoder).to(device), eos=never, pad=never)
    model.eos = model.pad = never
    return lambda: model.sample(prompts, NEW, rng)


def worker(kind: str, layers: int, width: int, batch: int, threads: int, seconds: float, device: str) -> None:
    """Generate for so many seconds whenever asked to."""
    import torch

    torch.set_num_threads(threads)
    write = generator(kind, layers, width, batch, device)

    def measure() -> dict:
        written, began = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - began) < seconds:
            write()
            if device != "cpu":
                torch.cuda.synchronize()
            written += batch * NEW
        return {"rate": written / elapsed}

    with torch.no_grad():
        for _ in range(3):
            write()
        serve(measure, gpu(device))


def compare(given: argparse.Namespace, batch: int) -> list[dict]:
    """Both of ours against transformers at one batch size, all three in turns."""
    rest = [str(number) for number in (given.layers, given.width, batch, given.threads, given.seconds)] + [given.device]
    kinds = ("decoder", "adapter", "generate")
    found = alternate({kind: [sys.executable, __file__, "--worker", kind, *rest] for kind in kinds}, given.pairs)
    rates = {kind: [measured["rate"] for measured in told["rounds"]] for kind, told in found.items()}
    rows = []
    for kind in kinds[:2]:
        medians = {"ours": float(np.median(rates[kind])), "theirs": float(np.median(rates["generate"]))}
        rows.append({"kind": kind, "batch": batch, **medians, **ratio(rates[kind], rates["generate"])})
    return rows


def table(rows: list[dict]) -> str:
    """As markdown."""
    lines = [
        "| ours | batch | ours, tokens/s | generate, tokens/s | ratio | 95% interval |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {r['kind']} | {r['batch']} | {r['ours']:,.0f} | {r['theirs']:,.0f} | {r['median']:.2f} "
        f"| {r['low']:.2f} to {r['high']:.2f} |"
        for r in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Compare at all batch sizes and write docs/results/text_generation.json."""
    if sys.argv[1:2] == ["--worker"]:
        kind, layers, width, batch, threads, seconds, device = sys.argv[2:]
        worker(kind, int(layers), int(width), int(batch), int(threads), float(seconds), device)
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a measurement")
    parser.add_argument("--threads", type=int, default=1, help="of torch, for all arms (default 1)")
    parser.add_argument("--device", default="cpu", help="of all arms (default cpu)")
    parser.add_argument("--out", type=Path, default=RESULTS / "text_generation.json")
    given = parser.parse_args()
    rows = [row for batch in given.batches for row in compare(given, batch)]
    results = {
        "machine": machine() | {"threads": given.threads},
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "model": {"layers": given.layers, "width": given.width, "words": WORDS, "prompt": PROMPT, "new": NEW},
        "pairs": given.pairs,
        "seconds": given.seconds,
        "comparisons": rows,
    }
    given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
