"""What the hub says about a model, before any weight is fetched.

Comes in: a hub id, a revision, and a token where a person gave one.  Goes out: a `HubModel`: files, sizes, licence,
shape, and what would keep it from being trained here.  The hub is asked only when a person pressed for it.  A token is
passed on with the request and is nowhere kept; no error text of the library is shown, so none can carry it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tuning.errors import ModelError
from tuning.hub.reach import ANSWER_SECONDS, reach_hub, within
from tuning.hub.repo import HubFile, HubRepo, told_plainly
from tuning.models import HUB_ID, INDEX, WEIGHTS, read_config, tuned_for
from tuning.shapes import ModelShape

_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
ALLOWED = frozenset(
    {
        "config.json",
        "generation_config.json",
        WEIGHTS,
        INDEX,
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "vocab.txt",
        "tokenizer.model",
        "spiece.model",
        "sentencepiece.bpe.model",
        "chat_template.jinja",
    }
)
"""Everything that is ever fetched, besides the shards of the weights: no pickle, no code, no other format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubModel(HubRepo):
    """A model as the hub describes it; where it is locked, its config could not be read."""

    shape: ModelShape | None
    tasks: tuple[str, ...]
    chat_template: bool
    parameters: int | None

    @property
    def weight_bytes(self) -> int:
        return sum(file.size for file in self.files if file.name.endswith(".safetensors"))

    @property
    def tuned(self) -> tuple[str, str]:
        return tuned_for(self.title, self.chat_template)


def look_up(model_id: str, revision: str | None = None, token: str | None = None) -> HubModel:
    """Ask the hub about a model; raises ModelError with a sentence, on field `token` where a token would help."""
    name = model_id.removeprefix("hub:").strip()
    if not HUB_ID.fullmatch(name) or "--" in name or ".." in name:
        raise ModelError(f"{model_id!r} is no hub id; write it as org/name", model_id, "org/name")
    address = reach_hub()
    late = f"The hub at {address} took the connection but did not answer within {ANSWER_SECONDS:g} seconds; try again."
    return within(ANSWER_SECONDS, lambda: _ask(address, name, revision or None, token or None), late)


def _ask(address: str, name: str, revision: str | None, token: str | None) -> HubModel:
    from huggingface_hub import HfApi

    with told_plainly(name, revision, token):
        # False where no token was typed: one kept on this machine is not sent without being asked for
        api = HfApi(endpoint=address, token=token or False)
        info = api.model_info(name, revision=revision, files_metadata=True, timeout=ANSWER_SECONDS)
    # other programs' names are not ours to trust: only plain names at the top of the model
    files = tuple(
        HubFile(one.rfilename, int(one.size or 0), one.lfs.sha256 if one.lfs else str(one.blob_id))
        for one in info.siblings or ()
        if one.rfilename in ALLOWED or _SHARD.fullmatch(one.rfilename)
    )
    files = tuple(sorted(files, key=lambda file: (file.name.endswith(".safetensors"), file.name)))  # weights last
    if any(file.name == WEIGHTS for file in files):  # one file or shards: never both
        files = tuple(file for file in files if file.name != INDEX and not _SHARD.fullmatch(file.name))
    names = {one.rfilename for one in info.siblings or ()}
    config, locked = _config(address, name, str(info.sha), token) if "config.json" in names else (None, False)
    shape, tasks, problem = _judge(name, names, config, locked)
    card = info.card_data.to_dict() if info.card_data else {}
    licence = card.get("license_name") or card.get("license")
    about = info.config if isinstance(info.config, dict) else {}
    told = about.get("tokenizer_config")
    template = "chat_template.jinja" in names or bool(isinstance(told, dict) and told.get("chat_template"))
    counted = info.safetensors.total if info.safetensors else shape.parameters if shape else None
    return HubModel(
        id=name,
        revision=revision,
        commit=str(info.sha),
        files=files,
        gated=bool(info.gated),
        locked=locked,
        licence=str(licence) if licence else None,
        shape=shape,
        tasks=tasks,
        chat_template=template,
        parameters=counted,
        problem=problem,
    )


def _config(address: str, name: str, commit: str, token: str | None) -> tuple[Any, bool]:
    """The model's config.json, and whether it is locked behind a licence that this token has not accepted."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session

    url = hf_hub_url(name, "config.json", revision=commit, endpoint=address)
    with told_plainly(name, commit, token):
        answer = get_session().get(url, headers=build_hf_headers(token=token or False), timeout=ANSWER_SECONDS)
        if answer.status_code in (401, 403):
            return None, True
        answer.raise_for_status()
        return answer.json(), False


def _judge(
    name: str, names: set[str], config: Any, locked: bool
) -> tuple[ModelShape | None, tuple[str, ...], str | None]:
    if locked:
        return None, (), f"{name} is gated: accept its licence on the hub's page, then paste a token that may read it."
    if config is None:
        return None, (), f"{name} has no config.json, so it is no transformers model; choose another."
    try:
        shape, tasks = read_config(config, name)
    except ModelError as error:
        return None, (), str(error)
    if WEIGHTS not in names and INDEX not in names:
        return (
            shape,
            tasks,
            (
                f"{name} has no safetensors weights, only formats that can run code when opened or that transformers "
                "does not read; look for a revision or a copy with model.safetensors."
            ),
        )
    if "tokenizer.json" not in names:
        message = (
            f"{name} has no tokenizer.json. Save it once with AutoTokenizer and save_pretrained, and use the folder."
        )
        return shape, tasks, message
    return shape, tasks, None
