"""Any causal language model of transformers behind the same protocol."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prefenvs.tasks.product import is_large, linear
from prefenvs.tasks.text.lm.decoder import Decoder
from prefenvs.tasks.text.lm.sampling import (
    Completions,
    Draws,
    completion_mask,
    draw_completions,
    token_logprobs,
    writable,
)


class TransformersModel(nn.Module):
    """Shows a causal language model of transformers as a LanguageModel.

    It stays in evaluation mode, without dropout: with it the learner would score tokens by another network than the one
    that drew them, and no ratio would begin at 1. Nor does transformers' gradient checkpointing work, which training
    mode turns on. GPT-2's activation is replaced by torch's kernel of the same function, and
    large linear layers on the CPU sample by the quicker library.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel                                    # doctest: +SKIP
        >>> model = TransformersModel(GPT2LMHeadModel(GPT2Config(vocab_size=64)), eos=0, pad=0)      # doctest: +SKIP
        >>> model.sample(prompts, max_new_tokens=8, rng=torch.Generator().manual_seed(0))            # doctest: +SKIP
    """

    def __init__(self, model: Any, *, eos: int, pad: int, vocab_size: int | None = None) -> None:
        """Show `model`.

        Args:
            model: a causal language model, with LoRA or without.
            eos: token that ends a completion.
            pad: token that pads prompts on the left and completions on the right; it may be `eos`.
            vocab_size: tokens it may write; some models have more than their tokenizer.
        """
        super().__init__()
        self.model, self.eos, self.pad = model, eos, pad
        self.vocab_size = int(vocab_size or model.config.vocab_size)
        self.width = int(model.config.hidden_size)
        for module in model.modules():
            if type(module) is nn.Linear:
                module.forward = partial(_linear, module, module.out_features)  # type: ignore[method-assign]
            elif type(module).__name__ == "Conv1D":  # GPT-2's linear layer
                module.forward = partial(_linear, module, module.nf)
            for name, child in module.named_children():
                if type(child).__name__ == "NewGELUActivation":  # GPT-2's; eight calls where torch has one
                    setattr(module, name, nn.GELU(approximate="tanh"))
        self.eval()

    def train(self, mode: bool = True) -> TransformersModel:
        """Stay in evaluation mode whatever `mode` is: not every model's dropout is a module that could be emptied."""
        return super().train(False)

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        local_files_only: bool = True,
        lora: Mapping[str, Any] | None = None,
        eos: int | None = None,
        pad: int | None = None,
        vocab_size: int | None = None,
        **model: Any,
    ) -> TransformersModel:
        """Read a model from a folder, without any network unless that is asked for.

        Args:
            name: a local folder, or with `local_files_only=False` a name on the hub.
            local_files_only: whether to refuse to download.
            lora: arguments of peft's LoraConfig; only these small matrices are then trained. A learner shares the rest
                between policy, reference and reward: to merge, merge a copy of the policy,
                `copy.deepcopy(learner.policy).model.merge_and_unload()`.
            eos: end token; by default the model's own.
            pad: padding token; by default the model's own, or else `eos`.
            vocab_size: tokens it may write.
            **model: passed to `AutoModelForCausalLM.from_pretrained`, as `dtype`.

        Raises:
            ImportError: if transformers, or peft where it is needed, is not installed.
            FileNotFoundError: if `name` is no local folder and the hub may not be asked.
        """
        try:
            from transformers import AutoModelForCausalLM
        except ImportError as error:
            raise ImportError("this needs transformers: pip install 'prefenvs[text]'.") from error
        if local_files_only and not Path(name).is_dir():
            raise FileNotFoundError(
                f"{str(name)!r} is no local folder, and the hub would be needed to find it. Download it to a folder, "
                "or pass local_files_only=False to let transformers download it."
            )
        loaded = AutoModelForCausalLM.from_pretrained(name, local_files_only=local_files_only, **model)
        end = loaded.config.eos_token_id if eos is None else eos
        end = end[0] if isinstance(end, list) else end
        if end is None:
            raise ValueError(f"the model in {str(name)!r} names no end token; pass eos=.")
        padding = loaded.config.pad_token_id if pad is None else pad
        if lora is not None:
            loaded = with_lora(loaded, lora)
        return cls(loaded, eos=end, pad=end if padding is None else padding, vocab_size=vocab_size)

    def hidden(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(n, T + 1, width) last stream after the prompt and t tokens of the completion, t = 0..T."""
        read = self._read(prompts, completions, output_hidden_states=True, logits_to_keep=1)
        return read.hidden_states[-1][:, prompts.shape[1] - 1 :]

    def logits(self, prompts: Tensor, completions: Tensor) -> Tensor:
        """(n, T, V) float32 logits that predict each token of the completions, whatever the type of the weights."""
        read = self._read(prompts, completions[:, :-1], logits_to_keep=completions.shape[1])
        return writable(read.logits[..., : self.vocab_size].float(), self.eos, self.pad)

    def logprobs(self, prompts: Tensor, completions: Tensor, temperature: float = 1.0) -> Tensor:
        """(n, T) log pi(y_t | x, y_<t) in nats, the end token's too; 0 on what follows it."""
        mask = completion_mask(completions, self.eos, self.pad)
        return torch.where(mask, token_logprobs(self.logits(prompts, completions), completions, temperature), 0.0)

    @torch.no_grad()
    def sample(self, prompts: Tensor, max_new_tokens: int, rng: Draws, temperature: float = 1.0) -> Completions:
        """Draw a completion of each prompt; `temperature` 0 takes the likeliest token."""
        width = prompts.shape[1]
        mask = F.pad((prompts != self.pad).cumsum(1) > 0, (0, max_new_tokens), value=True).long()
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        cache: Any = None

        def next_logits(token: Tensor | None, t: int) -> Tensor:
            nonlocal cache
            end = width + t
            read = self.model(
                input_ids=prompts if token is None else token,
                attention_mask=mask[:, :end],
                position_ids=positions[:, :end] if token is None else positions[:, end - 1 : end],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = read.past_key_values
            return read.logits[:, -1, : self.vocab_size]

        return draw_completions(next_logits, len(prompts), max_new_tokens, self.eos, self.pad, rng, temperature)

    def _read(self, prompts: Tensor, completions: Tensor, **outputs: Any) -> Any:
        mask = F.pad((prompts != self.pad).cumsum(1) > 0, (0, completions.shape[1]), value=True).long()
        return self.model(
            input_ids=torch.cat([prompts, completions], 1),
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
            **outputs,
        )


def _linear(layer: Any, outputs: int, x: Tensor) -> Tensor:
    """What a linear layer makes of x (..., inputs); `linear` knows no autograd, so it serves in inference mode only."""
    if not (torch.is_inference_mode_enabled() and is_large(x, x.numel() * outputs)):
        return type(layer).forward(layer, x)
    weight = layer.weight if isinstance(layer, nn.Linear) else layer.weight.t()  # Conv1D's is (in, out)
    return linear(x.flatten(0, -2), weight, layer.bias).unflatten(0, x.shape[:-1])


def with_lora(model: Any, settings: Mapping[str, Any]) -> Any:
    """A model whose weights are frozen and get low-rank matrices to train beside them (peft).

    Raises:
        ImportError: if peft is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ImportError("LoRA needs peft: pip install 'prefenvs[text]'.") from error
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))


def as_gpt2(decoder: Decoder) -> Any:
    """A GPT2LMHeadModel of transformers with the weights of our Decoder, to compare with and to save for others.

    Raises:
        ImportError: if transformers is not installed.
    """
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError as error:
        raise ImportError("this needs transformers: pip install 'prefenvs[text]'.") from error
    names = {"attention_norm": "ln_1", "attention_in": "attn.c_attn", "attention_out": "attn.c_proj"}
    names |= {"mlp_norm": "ln_2", "mlp_in": "mlp.c_fc", "mlp_out": "mlp.c_proj"}
    weights = {"wte.weight": decoder.words, "wpe.weight": decoder.positions}
    weights |= {"ln_f.weight": decoder.norm.weight, "ln_f.bias": decoder.norm.bias}
    for i, block in enumerate(decoder.blocks):
        for ours, theirs in names.items():
            layer = getattr(block, ours)
            # Theirs are (in, out) where torch's Linear is (out, in).
            weights[f"h.{i}.{theirs}.weight"] = layer.weight.T if layer.weight.ndim == 2 else layer.weight
            weights[f"h.{i}.{theirs}.bias"] = layer.bias
    config = GPT2Config(
        vocab_size=decoder.vocab_size,
        n_positions=decoder.context,
        n_embd=decoder.width,
        n_layer=len(decoder.blocks),
        n_head=decoder.heads,
        bos_token_id=decoder.eos,
        eos_token_id=decoder.eos,
        pad_token_id=decoder.pad,
    )
    model = GPT2LMHeadModel(config)
    model.transformer.load_state_dict({name: weight.detach().contiguous() for name, weight in weights.items()})
    return model.eval()
