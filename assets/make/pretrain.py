"""Pretrains the small world's model on generated text, and saves it with its tokenizer, its log and its checks.

Run `python assets/make/pretrain.py [--tokens N] [--out DIR]`; one thread, about 20 minutes for 8 million tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import checks  # noqa: E402
import torch  # noqa: E402
from documents import KINDS, documents  # noqa: E402
from tokenizer import VOCABULARY, save_tokenizer  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402
from world import SEED, World, make_world  # noqa: E402

LENGTH, ROWS, WARM_UP = 256, 8, 100
MUON_RATE, ADAMW_RATE, CLIP = 0.02, 4e-3, 1.0


def new_model(seed: int) -> LlamaForCausalLM:
    """The untrained model: 2.5 million parameters, Llama type, input and output vectors apart."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=160,
        intermediate_size=432,
        num_hidden_layers=6,
        num_attention_heads=5,
        num_key_value_heads=5,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )
    return LlamaForCausalLM(config)


def batches(world: World, tokenizer: Tokenizer) -> Iterator[torch.Tensor]:
    """Rows of LENGTH + 1 tokens cut from one endless text, documents apart by the end token."""
    stream = documents(world, "pretraining")
    flat: list[int] = [0]
    size = ROWS * (LENGTH + 1)
    while True:
        texts = [next(stream)[1] for _ in range(500)]
        for encoding in tokenizer.encode_batch(texts):
            flat += [*encoding.ids, 0]
        while len(flat) >= size:
            yield torch.tensor(flat[:size]).view(ROWS, LENGTH + 1)
            flat = flat[size:]


def optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for all else."""
    matrices = [p for n, p in model.named_parameters() if ".layers." in n and p.ndim == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=MUON_RATE, weight_decay=0.0),
        torch.optim.AdamW(rest, lr=ADAMW_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def train(tokens: int, seed: int, tokenizer: Tokenizer, world: World) -> tuple[LlamaForCausalLM, dict[str, Any]]:
    """Trains from nothing for about `tokens` tokens; returns the model and a log."""
    model = new_model(seed)
    model.train()
    opts = optimizers(model)
    bases = [o.param_groups[0]["lr"] for o in opts]
    steps = max(2, tokens // (LENGTH * ROWS))
    warm = min(WARM_UP, max(1, steps // 4))
    curve: list[dict[str, float]] = []
    started, running = time.process_time(), 0.0
    for step, batch in zip(range(steps), batches(world, tokenizer), strict=False):
        scale = min((step + 1) / warm, (steps - step) / max(1, steps - warm))
        for opt, base in zip(opts, bases, strict=True):
            opt.param_groups[0]["lr"] = base * scale
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(batch[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        for opt in opts:
            opt.step()
            opt.zero_grad(set_to_none=True)
        running += (float(loss.detach()) - running) / (1 if step == 0 else min(step + 1, 25))
        if (step + 1) % 50 == 0 or step + 1 == steps:
            seconds = round(time.process_time() - started, 1)
            curve.append({"step": step + 1, "loss": round(running, 4), "cpu_seconds": seconds})
            print(json.dumps(curve[-1]), flush=True)
    log = {
        "seed": seed,
        "steps": steps,
        "tokens": steps * LENGTH * ROWS,
        "rows": ROWS,
        "length": LENGTH,
        "muon_rate": MUON_RATE,
        "adamw_rate": ADAMW_RATE,
        "warm_up": warm,
        "clip": CLIP,
        "parameters": sum(p.numel() for p in model.parameters()),
        "kinds": {k: v[0] for k, v in KINDS.items()},
        "cpu_seconds": round(time.process_time() - started, 1),
        "curve": curve,
    }
    return model, log


def pretrain(tokens: int, out: Path, seed: int = SEED, measure: bool = True) -> dict[str, Any]:
    """The whole recipe: tokenizer, training, saving in 16 bit, and the checks on the stored form."""
    torch.set_num_threads(1)
    world = make_world(seed)
    tokenizer = save_tokenizer(out)
    model, log = train(tokens, seed, tokenizer, world)
    model.generation_config.max_new_tokens = 48
    model.half().save_pretrained(out)
    if measure:
        log["checks"] = checks.measure(*checks.load(out), world)
    (out / "pretraining_log.json").write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")
    return log


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=8_000_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "models" / "tiny-town")
    parser.add_argument("--seed", type=int, default=SEED)
    args = parser.parse_args()
    print(json.dumps(pretrain(args.tokens, args.out, args.seed).get("checks"), indent=1))
