"""Writes trl.json: losses that TRL 1.16.0 computes for pairs of responses under two random GPT-2 models.

In an environment with trl 1.16.0, and transformers and torch as pinned in constraints.txt and constraints-torch.txt:

    python tests/agents/text/golden/make_trl.py

It downloads nothing. The log-probabilities in the file come from a plain forward pass here, the losses from the
trainers' own `compute_loss`, one pair at a time, so that they are losses a pair; AOT's, which sort over the
batch, as a mean.
"""

import json
import os
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.utils.rnn import pad_sequence
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

WORDS = ["<pad>", "<eos>", *(f"w{i}" for i in range(30))]
PAIRS = [
    {"prompt": "w1 w2 w3", "chosen": " w4 w5 w6", "rejected": " w7 w8 w9 w10 w11"},
    {"prompt": "w3 w3", "chosen": " w12 w1 w2 w2 w9 w29", "rejected": " w14 w15"},
    {"prompt": "w20 w21", "chosen": " w22", "rejected": " w23 w24 w25"},
    {"prompt": "w5 w9 w11", "chosen": " w13 w17 w19 w23", "rejected": " w2 w4 w8 w16"},
    {"prompt": "w28", "chosen": " w27 w26 w25 w24 w23", "rejected": " w0 w1"},
]
SIDES = ("chosen", "rejected")
EVERY = range(len(PAIRS))
BETA = 0.3
SMOOTHING = 0.1
DPO_LOSSES = {  # our name, TRL's settings
    "dpo": {"loss_type": "sigmoid"},
    "hinge": {"loss_type": "hinge"},
    "ipo_norm": {"loss_type": "ipo"},
    "exo": {"loss_type": "exo_pair", "label_smoothing": SMOOTHING},
    "nca": {"loss_type": "nca_pair"},
    "robust_dpo": {"loss_type": "robust", "label_smoothing": SMOOTHING},
    "bco": {"loss_type": "bco_pair"},
    "sppo": {"loss_type": "sppo_hard"},
    "aot": {"loss_type": "aot"},
    "aot_unpaired": {"loss_type": "aot_unpaired"},
    "apo_zero": {"loss_type": "apo_zero"},
    "apo_down": {"loss_type": "apo_down"},
    "discopop": {"loss_type": "discopop"},
    "sft_norm": {"loss_type": "sft"},
    "dpo_norm": {"loss_type": "sigmoid_norm"},
    "forward_kl_dpo": {"loss_type": "sigmoid", "f_divergence_type": "forward_kl"},
    "js_dpo": {"loss_type": "sigmoid", "f_divergence_type": "js_divergence"},
    "alpha_dpo": {"loss_type": "sigmoid", "f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.5},
    "wpo": {"loss_type": "sigmoid", "use_weighting": True},
    "iterative_rpo": {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7]},
}
CPO_LOSSES = {
    "cpo_norm": {"loss_type": "sigmoid", "cpo_alpha": 0.7},
    "simpo": {"loss_type": "simpo", "cpo_alpha": 0.0, "simpo_gamma": 0.5},
    "alpha_po": {"loss_type": "simpo", "cpo_alpha": 0.0, "simpo_gamma": 0.5, "alpha": 0.25},
}


def tokenizer():
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<eos>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", bos_token="<eos>")


def padded(rows, value):
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def gpt2(seed):
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(WORDS), n_positions=32, n_embd=32, n_layer=2, n_head=2, initializer_range=0.25,
        bos_token_id=1, eos_token_id=1, pad_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def settings(folder):
    return {
        "output_dir": folder, "use_cpu": True, "bf16": False, "report_to": [], "gradient_checkpointing": False,
        "per_device_train_batch_size": len(PAIRS), "max_length": 32, "disable_dropout": True,
    }  # fmt: skip


def loss_of(trainer, rows):
    """The trainer's own mean loss of these rows of its own data set."""
    batch = trainer.data_collator([trainer.train_dataset[i] for i in rows])
    trainer.model.eval()
    with torch.no_grad():
        return float(trainer.compute_loss(trainer.model, batch)), batch


@torch.no_grad()
def sums(model, ids, attention, completion):
    """Log-probability and log collision probability summed over completions, and their tokens, by a plain forward."""
    logps = model(input_ids=ids, attention_mask=attention).logits[:, :-1].log_softmax(-1)
    mask = completion[:, 1:].bool()
    taken = logps.gather(-1, ids[:, 1:, None])[..., 0]
    collision = (2 * logps).logsumexp(-1)
    return {
        "logp": torch.where(mask, taken, 0.0).sum(1),
        "collision": torch.where(mask, collision, 0.0).sum(1),
        "tokens": mask.sum(1),
    }


def fields(policy, reference, ids, attention, completion):
    """The fields of PairLogps for a batch that holds the chosen rows and then the rejected ones."""
    ours, theirs = sums(policy, ids, attention, completion), sums(reference, ids, attention, completion)
    named = {"policy": ours["logp"], "reference": theirs["logp"]}
    found = {
        f"{who}_{side}": half for who, value in named.items() for side, half in zip(SIDES, value.chunk(2), strict=True)
    }
    found |= {f"{side}_tokens": half for side, half in zip(SIDES, ours["tokens"].chunk(2), strict=True)}
    found |= {f"{side}_log_collision": half for side, half in zip(SIDES, ours["collision"].chunk(2), strict=True)}
    return {name: value.tolist() for name, value in found.items()}


def dpo_goldens(folder):
    losses = {}
    for name, options in DPO_LOSSES.items():
        args = DPOConfig(beta=BETA, **settings(folder), **options)
        data = Dataset.from_list(PAIRS)
        trainer = DPOTrainer(gpt2(1), gpt2(2), args, train_dataset=data, processing_class=tokenizer())
        whole, batch = loss_of(trainer, EVERY)
        losses[name] = [whole] if name.startswith("aot") else [loss_of(trainer, [i])[0] for i in EVERY]
    pairs = fields(gpt2(1), gpt2(2), batch["input_ids"], batch["attention_mask"], batch["completion_mask"])
    return {"beta": BETA, "pairs": pairs, "losses": losses}


def reference_free_goldens(folder):
    """These trainers put a token in front of the prompt, so their pairs have other log-probabilities."""
    losses = {}
    for name, options in CPO_LOSSES.items():
        args = CPOConfig(beta=BETA, **settings(folder), **options)
        trainer = CPOTrainer(gpt2(1), args, train_dataset=Dataset.from_list(PAIRS), processing_class=tokenizer())
        losses[name] = [loss_of(trainer, [i])[0] for i in EVERY]
    args = ORPOConfig(beta=BETA, **settings(folder))
    trainer = ORPOTrainer(gpt2(1), args, train_dataset=Dataset.from_list(PAIRS), processing_class=tokenizer())
    losses["orpo_odds_term"] = [odds_term(trainer, i) for i in EVERY]  # its other term counts the prompt's tokens too
    rows = [trainer.train_dataset[i] for i in EVERY]
    ids = padded([row[f"{side}_input_ids"] for side in SIDES for row in rows], 0)
    attention = padded([row[f"{side}_attention_mask"] for side in SIDES for row in rows], 0)
    labels = padded([row[f"{side}_labels"] for side in SIDES for row in rows], -100)
    return {"beta": BETA, "pairs": fields(gpt2(1), gpt2(2), ids, attention, (labels != -100).long()), "losses": losses}


@torch.no_grad()
def odds_term(trainer, row):
    batch = trainer.data_collator([trainer.train_dataset[row]])
    chosen, rejected = trainer.concatenated_forward(trainer.model.eval(), batch)[:2]
    return -float(trainer.odds_ratio_loss(chosen, rejected)[0])


def kto_goldens(folder):
    """One batch of desirable and undesirable responses, whose KL is estimated on responses to other prompts."""
    rows = [{"prompt": p["prompt"], "completion": p[side], "label": side == "chosen"} for p in PAIRS for side in SIDES]
    weights = {"desirable_weight": 1.3, "undesirable_weight": 0.7}
    args = KTOConfig(beta=BETA, **weights, **settings(folder) | {"per_device_train_batch_size": len(rows)})
    data = Dataset.from_list(rows)
    trainer = KTOTrainer(gpt2(1), gpt2(2), args, train_dataset=data, processing_class=tokenizer())
    loss, batch = loss_of(trainer, range(len(rows)))
    ratios = {}
    for name, prefix in (("ratios", ""), ("mismatched_ratios", "KL_")):
        given = [batch[f"{prefix}{key}"] for key in ("input_ids", "attention_mask", "completion_mask")]
        ratios[name] = (sums(gpt2(1), *given)["logp"] - sums(gpt2(2), *given)["logp"]).tolist()
    desirable = [bool(label) for label in batch["label"]]
    return {"beta": BETA, **weights, **ratios, "desirable": desirable, "mean_loss": loss}


def main():
    with tempfile.TemporaryDirectory() as folder:
        made = {
            "made_by": f"trl {trl.__version__}, transformers {transformers.__version__}, torch {torch.__version__}",
            "smoothing": SMOOTHING,
            "direct": dpo_goldens(folder),
            "reference_free": reference_free_goldens(folder),
            "kto": kto_goldens(folder),
        }
    Path(__file__).with_name("trl.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
