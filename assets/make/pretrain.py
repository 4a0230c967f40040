"""Pretraining of the small world's model on generated text; it is saved with its tokenizer, its log and its checks.

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
# Before any text it learns to attend to earlier tokens, on repeated random tokens: (different tokens, updates).
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
    """Rows of LENGTH + 1 tokens from one endless text, in which the end token separates documents."""
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


def copy_rows(seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Rows of a repeated sequence of random tokens, and which of their tokens follow from earlier ones.

    Without these the model never learned to read a passage: in texts alone, attending to an earlier use of a word pays
    too rarely. The rows have few different tokens at first, for then it is learned within three hundred updates.
    """
    tokens_rng, lengths_rng = torch.Generator().manual_seed(seed), random.Random(seed)
    tokens = torch.randperm(VOCABULARY - 2, generator=tokens_rng) + 2
    for different, updates in COPYING:
        for _ in range(updates):
            rows = torch.zeros(COPY_ROWS, COPY_LENGTH + 1, dtype=torch.long)
            predictable = torch.zeros(COPY_ROWS, COPY_LENGTH, dtype=torch.bool)
            for i in range(COPY_ROWS):
                length = lengths_rng.randint(SHORTEST, LONGEST)
                sequence = tokens[torch.randint(different, (length,), generator=tokens_rng)]
                rows[i] = sequence.repeat(COPY_LENGTH // length + 2)[: COPY_LENGTH + 1]
                predictable[i, length:] = True
            yield rows, predictable


def optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks except queries and keys, AdamW for all others.

    Under Muon queries and keys grew until every head attended to one token and learned nothing more.
    """
    queries_and_keys = ("q_proj.weight", "k_proj.weight")
    matrices = {
        name: weight
        for name, weight in model.named_parameters()
        if ".layers." in name and weight.ndim == 2 and not name.endswith(queries_and_keys)
    }
    others = [weight for name, weight in model.named_parameters() if name not in matrices]
    return [
        torch.optim.Muon(matrices.values(), lr=MUON_RATE, weight_decay=0.0),
        torch.optim.AdamW(others, lr=ADAMW_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def update(
    model: LlamaForCausalLM,
    optimizers: list[torch.optim.Optimizer],
    batch: torch.Tensor,
    predictable: torch.Tensor | None,
) -> float:
    """One update on all tokens of the rows, or on the predictable ones. Returns the loss before it."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(batch[:, :-1]).logits
    labels = batch[:, 1:] if predictable is None else batch[:, 1:].masked_fill(~predictable, -100)
    loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def train(tokens: int, seed: int, tokenizer: Tokenizer, world: World) -> tuple[LlamaForCausalLM, dict[str, Any]]:
    """Train from nothing, on copies first and then on about `tokens` tokens of text. Returns the model and a log."""
    model = new_model(seed)
    model.train()
    parts = optimizers(model)
    rates = [part.param_groups[0]["lr"] for part in parts]
    steps = max(4, tokens // (LENGTH * ROWS))
    copies = min(sum(count for _, count in COPYING), steps)  # fewer in a miniature
    copy_batches = itertools.islice(copy_rows(seed), copies)
    texts = ((batch, None) for batch in batches(world, tokenizer))
    curve: list[dict[str, float]] = []
    started, mean_loss = time.process_time(), 0.0
    for step, (batch, predictable) in enumerate(itertools.islice(itertools.chain(copy_batches, texts), copies + steps)):
        scale = min((step + 1) / WARM_UP, 1.0, (copies + steps - step) / steps)
        for part, rate in zip(parts, rates, strict=True):
            part.param_groups[0]["lr"] = rate * scale
        loss = update(model, parts, batch, predictable)
        mean_loss += (loss - mean_loss) / min((step if step < copies else step - copies) + 1, 25)
        if (step + 1) % 50 == 0 or step + 1 == copies + steps:
            seconds = round(time.process_time() - started, 1)
            curve.append({"step": step + 1, "loss": round(mean_loss, 4), "cpu_seconds": seconds})
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
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "kinds": {kind: share for kind, (share, _) in KINDS.items()},
        "cpu_seconds": round(time.process_time() - started, 1),
        "curve": curve,
    }
    return model, log


def pretrain(tokens: int, out: Path, seed: int = SEED) -> dict[str, Any]:
    """Make the tokenizer, train, and measure the stored model. Returns the log."""
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
