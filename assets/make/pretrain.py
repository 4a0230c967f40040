"""Pretrains the small world's model on generated text, and saves it with its tokenizer, its log and its checks.

Run `python assets/make/pretrain.py [--tokens N] [--out DIR]`; one thread, about 32 CPU minutes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
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

LENGTH, ROWS, WARM_UP = 256, 8, 50
# Before any text it learns to look back: random tokens said again. (how many different tokens, updates)
COPYING = [(64, 320), (256, 180), (VOCABULARY - 2, 350)]
COPY_LENGTH, COPY_ROWS, SHORTEST, LONGEST = 64, 24, 4, 24
MUON_RATE, ADAMW_RATE, CLIP = 0.01, 2e-3, 1.0


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


def copying(seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Rows of one stretch of random tokens again and again, and which of their places can be known from before.

    Without this the model never learned to read a passage: at the rate of texts alone, looking back for the same
    word pays too rarely. Few tokens at first, because then it is found within three hundred updates.
    """
    draw, count = torch.Generator().manual_seed(seed), random.Random(seed)
    tokens = torch.randperm(VOCABULARY - 2, generator=draw) + 2
    for different, updates in COPYING:
        for _ in range(updates):
            rows = torch.zeros(COPY_ROWS, COPY_LENGTH + 1, dtype=torch.long)
            known = torch.zeros(COPY_ROWS, COPY_LENGTH, dtype=torch.bool)
            for i in range(COPY_ROWS):
                length = count.randint(SHORTEST, LONGEST)
                stretch = tokens[torch.randint(different, (length,), generator=draw)]
                rows[i] = stretch.repeat(COPY_LENGTH // length + 2)[: COPY_LENGTH + 1]
                known[i, length:] = True
            yield rows, known


def optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for all else and for what attention looks with.

    Under Muon queries and keys grew until every head stared at one place and learned nothing more.
    """
    looks = ("q_proj.weight", "k_proj.weight")
    inner = {n: p for n, p in model.named_parameters() if ".layers." in n and p.ndim == 2 and not n.endswith(looks)}
    rest = [p for n, p in model.named_parameters() if n not in inner]
    return [
        torch.optim.Muon(inner.values(), lr=MUON_RATE, weight_decay=0.0),
        torch.optim.AdamW(rest, lr=ADAMW_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def update(
    model: LlamaForCausalLM, opts: list[torch.optim.Optimizer], batch: torch.Tensor, known: torch.Tensor | None
) -> float:
    """One update on all places of the rows, or on the known ones; returns the loss before it."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(batch[:, :-1]).logits
    wanted = batch[:, 1:] if known is None else batch[:, 1:].masked_fill(~known, -100)
    loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), wanted.flatten())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    for opt in opts:
        opt.step()
        opt.zero_grad(set_to_none=True)
    return float(loss.detach())


def train(tokens: int, seed: int, tokenizer: Tokenizer, world: World) -> tuple[LlamaForCausalLM, dict[str, Any]]:
    """Trains from nothing: copying first, then about `tokens` tokens of text; returns the model and a log."""
    model = new_model(seed)
    model.train()
    opts = optimizers(model)
    bases = [o.param_groups[0]["lr"] for o in opts]
    steps = max(4, tokens // (LENGTH * ROWS))
    copies = min(sum(count for _, count in COPYING), steps)  # fewer in a miniature
    first = itertools.islice(copying(seed), copies)
    texts = ((batch, None) for batch in batches(world, tokenizer))
    curve: list[dict[str, float]] = []
    started, running = time.process_time(), 0.0
    for step, (batch, known) in enumerate(itertools.islice(itertools.chain(first, texts), copies + steps)):
        scale = min((step + 1) / WARM_UP, 1.0, (copies + steps - step) / steps)
        for opt, base in zip(opts, bases, strict=True):
            opt.param_groups[0]["lr"] = base * scale
        loss = update(model, opts, batch, known)
        running += (loss - running) / min((step if step < copies else step - copies) + 1, 25)
        if (step + 1) % 50 == 0 or step + 1 == copies + steps:
            seconds = round(time.process_time() - started, 1)
            curve.append({"step": step + 1, "loss": round(running, 4), "cpu_seconds": seconds})
            print(json.dumps(curve[-1]), flush=True)
    log = {
        "seed": seed,
        "copying": [list(stage) for stage in COPYING],
        "copies": copies,
        "steps": copies + steps,
        "tokens": steps * LENGTH * ROWS,
        "rows": ROWS,
        "length": LENGTH,
        "muon_rate": MUON_RATE,
        "adamw_rate": ADAMW_RATE,
        "warm_up": WARM_UP,
        "clip": CLIP,
        "parameters": sum(p.numel() for p in model.parameters()),
        "kinds": {kind: share for kind, (share, _) in KINDS.items()},
        "cpu_seconds": round(time.process_time() - started, 1),
        "curve": curve,
    }
    return model, log


def pretrain(tokens: int, out: Path, seed: int = SEED) -> dict[str, Any]:
    """The whole recipe: tokenizer, training, and the checks on the stored form."""
    torch.set_num_threads(1)
    world = make_world(seed)
    tokenizer = save_tokenizer(out)
    model, log = train(tokens, seed, tokenizer, world)
    model.generation_config.max_new_tokens = 48
    model.save_pretrained(out)
    log["checks"] = checks.measure(*checks.load(out), world)
    (out / "pretraining_log.json").write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")
    return log


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=7_600_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "models" / "tiny-town")
    parser.add_argument("--seed", type=int, default=SEED)
    args = parser.parse_args()
    print(json.dumps(pretrain(args.tokens, args.out, args.seed).get("checks"), indent=1))
