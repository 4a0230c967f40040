"""What a model says: before and after the training, side by side.

Comes in: a model and prompts.  Goes out: texts (for a classifier: the class and its probability).  Sampling draws from
a generator of its own, so that asking a model in the middle of its training changes nothing about the training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import nn

from tuning.errors import RunError
from tuning.methods import method_named
from tuning.text import TextTokenizer
from tuning.training.build import load_base
from tuning.training.save import saved_labels

NO_CLASSES = "(a new head knows no classes yet)"


def answers(
    run_folder: str | Path, model_path: str, method: str, prompts: Sequence[str], max_new_tokens: int,
    temperature: float, seed: int,
) -> dict[str, list[str]]:  # fmt: skip
    """What the base model and the saved one of this run answer: {"base": [...], "trained": [...]}."""
    chosen = method_named(method)
    artifact = Path(run_folder) / chosen.artifact
    if not artifact.is_dir():
        raise RunError("This run has saved nothing yet, so there is no trained model to ask.")
    tokenizer = TextTokenizer(model_path)
    labels = saved_labels(artifact)
    base = _base(model_path, tokenizer, labels)
    said = _base_said(base, tokenizer, prompts, max_new_tokens, temperature, seed, labels)
    with torch.random.fork_rng(devices=[]):  # a fresh adapter draws its weights before the saved ones come
        trained = chosen.load(base, artifact).eval()
    return {"base": said, "trained": answer_all(trained, tokenizer, prompts, max_new_tokens, temperature, seed, labels)}


def live_answers(
    model: nn.Module, tokenizer: TextTokenizer, model_path: str, method: str, prompts: Sequence[str],
    max_new_tokens: int, temperature: float, seed: int, labels: Sequence[str] | None = None,
) -> dict[str, list[str]]:  # fmt: skip
    """The same from a model in training. The base is the model without its adapter; where the method has changed
    the weights themselves, it is loaded beside it for the answer."""
    trained = answer_all(model, tokenizer, prompts, max_new_tokens, temperature, seed, labels)
    view = method_named(method).base_view(model) if labels is None else None
    with view or nullcontext():
        base = model if view is not None or labels is not None else _base(model_path, tokenizer, None)
        said = _base_said(base, tokenizer, prompts, max_new_tokens, temperature, seed, labels)
    return {"base": said, "trained": trained}


def _base(model_path: str, tokenizer: TextTokenizer, labels: Sequence[str] | None) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # a fresh head draws its weights
        model = load_base(
            model_path, labels=labels, attention="sdpa", dtype=torch.float32, pad_id=tokenizer.pad_id or 0
        )
    return model.eval()


def _base_said(
    base: nn.Module, tokenizer: TextTokenizer, prompts: Sequence[str], max_new_tokens: int, temperature: float,
    seed: int, labels: Sequence[str] | None,
) -> list[str]:  # fmt: skip
    if labels is not None:
        return [NO_CLASSES] * len(prompts)
    return answer_all(base, tokenizer, prompts, max_new_tokens, temperature, seed)


def answer_all(
    model: nn.Module, tokenizer: TextTokenizer, prompts: Sequence[str], max_new_tokens: int, temperature: float,
    seed: int, labels: Sequence[str] | None = None,
) -> list[str]:  # fmt: skip
    """An answer to each prompt; greedy at temperature 0. The model's mode is put back."""
    with _asked(model), torch.no_grad():
        if labels is not None:
            return [_classify(model, tokenizer, prompt, labels) for prompt in prompts]
        return [_write(model, tokenizer, prompt, max_new_tokens, temperature, seed) for prompt in prompts]


@contextmanager
def _asked(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _write(
    model: nn.Module, tokenizer: TextTokenizer, prompt: str, max_new_tokens: int, temperature: float, seed: int
) -> str:
    device = next(model.parameters()).device
    ids = tokenizer.encode(prompt)
    if tokenizer.bos_id is not None:
        ids = [tokenizer.bos_id, *ids]
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None:  # the end of a long prompt is kept, with room for an answer
        max_new_tokens = min(max_new_tokens, limit - 1)
        ids = ids[-max(1, limit - max_new_tokens) :]
    if not ids:
        raise RunError("The prompt is empty; write something for the model to go on from.")
    generator = torch.Generator().manual_seed(seed)
    ends = {tokenizer.eos_id, getattr(model.config, "eos_token_id", None)} - {None}
    said: list[int] = []
    past, given = None, torch.tensor([ids], device=device)
    while len(said) < max_new_tokens:
        output = model(input_ids=given, past_key_values=past, use_cache=True)
        past = output.past_key_values
        token = _choose(output.logits[0, -1].float().cpu(), temperature, generator)
        if token in ends:
            break
        said.append(token)
        given = torch.tensor([[token]], device=device)
    return tokenizer.decode(said)


def _choose(logits: torch.Tensor, temperature: float, generator: torch.Generator) -> int:
    if temperature <= 0:
        return int(logits.argmax())
    chances = torch.softmax(logits / temperature, -1)
    return int(torch.multinomial(chances, 1, generator=generator))


def _classify(model: nn.Module, tokenizer: TextTokenizer, prompt: str, labels: Sequence[str]) -> str:
    device = next(model.parameters()).device
    ids = tokenizer.encode_with_specials(prompt)
    if not ids:
        raise RunError("The prompt is empty; write a text to classify.")
    chances = torch.softmax(model(input_ids=torch.tensor([ids], device=device)).logits[0].float(), -1)
    best = int(chances.argmax())
    return f"{labels[best]} ({float(chances[best]):.0%})"
