"""A model folder's tokenizer: token ids and begin, end and pad as transformers has them for the same folder.

Where the folder names the general tokenizer class, what transformers does is little and done here with the `tokenizers`
package alone, so that counting tokens imports nothing heavy; where it names another class (LlamaTokenizer,
BertTokenizer, ...), that class may build its tokenizer otherwise than tokenizer.json says, and transformers opens it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from tokenizers import AddedToken, Encoding, Tokenizer

from tuning.core.errors import DataError, ModelError, Notice
from tuning.text.chat_template_process import render_chat
from tuning.text.chat_templates import ChatTemplates

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""The special tokens that a chat template finds under their names."""
GENERAL = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes that take tokenizer.json as it is."""
OWN_CLASS = (
    "hyperclovax_vision_v2",
    "qwen2",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_5_moe_text",
    "qwen4_exp",
    "siglip2",
)
"""Kinds of model for which transformers takes their own class whatever class the folder names."""
SECONDS = 60.0
"""How long a tokenizer may take for the texts it is given at once; usual ones read a million characters a second."""
QUICK_CHARACTERS = 4_000
"""So many characters are read here and now: a thread to wait for costs more."""
MOST_GROWTH = 100
"""How many characters a tokenizer may make of one before it looks for tokens; usual ones make one to three."""
Found = TypeVar("Found")
_imports = threading.Lock()


@contextmanager
def imports_in_line() -> Iterator[None]:
    """Held by whoever imports transformers: two threads that do so at once get it half made."""
    with _imports:
        yield


@dataclass(frozen=True, slots=True)
class _Opened:
    """What a folder says."""

    tokenizer: Tokenizer
    named: dict[str, str]
    """The special tokens under their names, as far as the folder has them."""
    special_ids: frozenset[int]
    templates: dict[str, str]
    """Chat templates by name; one alone is `default`."""
    pairs_typed: bool
    """Whether the model is told which of two texts a token belongs to."""
    cut_left: bool
    notices: tuple[Notice, ...] = ()
    endless: list[str] = field(default_factory=list)
    """Why it is not asked again, where it never ended."""


class TextTokenizer:
    """A model folder's tokenizer, without torch. Raises ModelError where it cannot be read."""

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        self._opened = _open(str(folder), _stamps(folder))
        self._tokenizer, named = self._opened.tokenizer, self._opened.named
        self.bos_id = self._id_of(named.get("bos_token"))
        self.eos_id = self._id_of(named.get("eos_token"))
        model = _json(folder / "config.json")
        self.pad_id = self._padding(named.get("pad_token"), model.get("vocab_size"))
        unknown = getattr(self._tokenizer.model, "unk_token", named.get("unk_token"))  # GPT-2 names one it never writes
        self.unknown_id = self._id_of(unknown)
        """What the tokenizer writes for what it has no token for; None where it has one for everything, or nothing."""
        self.special_ids = self._opened.special_ids
        self.notices = self._opened.notices
        """What of the folder is read otherwise than it stands there."""
        self.chat = ChatTemplates(self._opened.templates, self._opened.named)
        self.chat_template: str | None = self._opened.templates.get("default")
        self.frame = _frame(self._tokenizer)
        """How many special tokens it puts before a text, and behind it."""
        self.config_bos_id = _first(model.get("bos_token_id")) if self.bos_id is None else self.bos_id
        self.config_eos_id = _first(model.get("eos_token_id")) if self.eos_id is None else self.eos_id
        """Begin and end as config.json has them where the tokenizer has none (data.special_tokens `config`)."""
        ends = {self.eos_id, *_all_of(model.get("eos_token_id"))}
        ends |= set(_all_of(_json(folder / "generation_config.json").get("eos_token_id")))
        self.end_ids = frozenset(one for one in ends if isinstance(one, int))
        """All tokens at which a model of this folder stops writing."""
        end = named.get("eos_token") or ""
        self.end_text = end if self.eos_id is not None and self.encode(end) == [self.eos_id] else ""
        """What stands for the end token in a text; empty where nothing does."""

    def _padding(self, token: str | None, size: Any) -> int:
        """What rows are filled up with; padding is masked out of loss and attention, so any token with an embedding
        does. `size` is how many have one, as config.json says."""
        choices = [one for one in (self._id_of(token), self.eos_id, 0) if one is not None]
        return next((one for one in choices if not isinstance(size, int) or one < size), 0)

    def _id_of(self, token: str | None) -> int | None:
        return None if token is None else self._tokenizer.token_to_id(token)

    # -- what it has -----------------------------------------------------------------------------------------------
    @property
    def size(self) -> int:
        """Different tokens it can write, added ones among them."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    @property
    def largest_id(self) -> int:
        """The largest token id it can write; an embedding needs a row more than that."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=0)

    @property
    def has_chat_template(self) -> bool:
        return bool(self._opened.templates)

    @property
    def pairs_typed(self) -> bool:
        """Whether models of this folder are told which of two texts a token belongs to (token_type_ids)."""
        return self._opened.pairs_typed

    @property
    def cuts_left(self) -> bool:
        """Whether a text that is too long loses its beginning (truncation_side)."""
        return self._opened.cut_left

    # -- texts to tokens ------------------------------------------------------------------------------------------
    def encode(self, text: str) -> list[int]:
        """Token ids of the text alone, without special tokens around it."""
        return list(self._held(partial(self._tokenizer.encode, text, add_special_tokens=False), [text]).ids)

    def encode_with_specials(self, text: str) -> list[int]:
        """Token ids as the tokenizer itself frames a text (BERT's [CLS] and [SEP])."""
        return list(self._held(partial(self._tokenizer.encode, text), [text]).ids)

    def encodings(self, texts: Sequence[str], specials: bool, *, places: bool = False) -> list[Encoding]:
        """Many texts at once, with the tokenizer's own special tokens around each where `specials` is true; with
        `places` each token knows its characters."""
        encode = self._tokenizer.encode_batch if places else self._tokenizer.encode_batch_fast
        return list(self._held(partial(encode, list(texts), add_special_tokens=specials), texts))

    def pair_encodings(self, pairs: Sequence[tuple[str, str | None]]) -> list[Encoding]:
        """Texts, or pairs of them, as a classifier reads them: with special tokens and which text each belongs to."""
        given = [first if second is None else (first, second) for first, second in pairs]
        texts = [text for pair in pairs for text in pair if text is not None]
        encode = partial(self._tokenizer.encode_batch_fast, given, add_special_tokens=True)
        return list(self._held(encode, texts))

    def _held(self, encode: Callable[[], Found], texts: Sequence[str]) -> Found:
        """What `encode` gives for these texts. Raises ModelError where the tokenizer fails on them, or takes longer
        than `SECONDS`: its regular expressions are programs that a model folder brings, and some never end."""
        if self._opened.endless:
            raise self._unusable(self._opened.endless[0])
        try:
            if sum(map(len, texts)) < QUICK_CHARACTERS:
                return encode()
            waiting = Future[Found]()
            threading.Thread(target=_settle, args=(waiting, encode), name="tokens", daemon=True).start()
            return waiting.result(SECONDS)
        except TimeoutError:  # its thread cannot be ended: one is left behind, and no more
            self._opened.endless.append(f"it did not end within {SECONDS:g} s on {sum(map(len, texts)):,} characters")
            raise self._unusable(self._opened.endless[0]) from None
        except BaseException as error:  # the package panics where a regular expression gives up: no Exception
            if isinstance(error, Exception) or type(error).__name__ == "PanicException":
                raise self._unusable(
                    f"it fails on a text: {str(error).splitlines()[0] if str(error) else error!r}"
                ) from None
            raise

    def _unusable(self, why: str) -> ModelError:
        message = f"the model's tokenizer cannot be used: {why}; choose another model"
        return ModelError(message, "tokenizer.json", "a tokenizer that reads any text")

    def piece(self, token: int) -> str | None:
        """The token as the vocabulary writes it; None for an id that is not in it."""
        return self._tokenizer.id_to_token(token)

    def decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    # -- conversations --------------------------------------------------------------------------------------------
    def render_chat(
        self, messages: list[dict[str, Any]], add_generation_prompt: bool, tools: list[Any] | None = None
    ) -> str:
        """The conversation as the model's chat template writes it; raises DataError naming what failed."""
        return render_chat(self.chat, messages, add_generation_prompt, tools)

    @cached_property
    def written_end(self) -> str:
        """The end token's text where the chat template ends an answer with a special token, so that an end behind the
        answer's own words would be a second one; else empty."""
        if not self.end_text or not self.has_chat_template:
            return ""
        answer = "answer"
        try:
            text = self.render_chat([{"role": "user", "content": "a"}, {"role": "assistant", "content": answer}], False)
        except DataError:
            return ""
        ids = self.encode(text.rpartition(answer)[2])
        return self.end_text if any(one in self.special_ids for one in ids) else ""


# -- opening a folder -------------------------------------------------------------------------------------------------
def tokenizer_files(folder: Path) -> list[Path]:
    """All files of a folder that can change a token: what is read here, and vocabularies that transformers reads for
    some classes."""
    patterns = ("*.json", "*.jinja", "additional_chat_templates/*.jinja", "*.model", "vocab.*", "merges.txt")
    found = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    return sorted(file for file in found if not file.name.endswith(".index.json"))


def _stamps(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, times and sizes of all files that are read: with others the folder is opened anew."""
    stats = [(file.name, file.stat()) for file in tokenizer_files(folder)]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


@lru_cache(maxsize=4)
def _open(place: str, stamps: Any) -> _Opened:
    folder = Path(place)
    config, model = _json(folder / "tokenizer_config.json"), _json(folder / "config.json")
    try:
        if _is_general(config, model):
            return _general(folder, config, model)
        return _by_transformers(folder, config, model)
    except ModelError:
        raise
    except Exception as error:  # the packages raise what comes: bare exceptions, KeyError, TypeError
        message = (
            f"the tokenizer of {folder.name} cannot be read: {str(error).splitlines()[0] if str(error) else error!r}"
        )
        raise ModelError(message, place, "a tokenizer that transformers opens") from None


def _check_growth(folder: Path) -> None:
    """Raises ModelError where the normalizer or the decoder of tokenizer.json makes a text much longer than it is: a
    few lines of JSON would fill the memory."""
    plain, growth = _json(folder / "tokenizer.json"), 1.0
    waiting = [plain.get("normalizer"), plain.get("decoder")]
    while waiting:
        one = waiting.pop()
        if not isinstance(one, dict):
            continue
        waiting += [*(one.get("normalizers") or ()), *(one.get("decoders") or ())]
        if one.get("type") == "Replace":
            pattern = one.get("pattern") or {}
            growth *= max(1.0, len(one.get("content") or "") / max(1, len(pattern.get("String") or " ")))
        if growth > MOST_GROWTH:
            message = (
                f"the tokenizer of {folder.name} makes more than {MOST_GROWTH} characters of one before it reads a text"
            )
            raise ModelError(message, "tokenizer.json", f"at most {MOST_GROWTH} characters for one")


def _settle(waiting: Future[Found], encode: Callable[[], Found]) -> None:
    try:
        waiting.set_result(encode())
    except BaseException as error:  # told to who waits
        waiting.set_exception(error)


def _is_general(config: dict[str, Any], model: dict[str, Any]) -> bool:
    """Whether transformers would take tokenizer.json of this folder as it is."""
    own = {model.get("model_type"), model.get("model_name")} & set(OWN_CLASS)
    return config.get("tokenizer_class") in GENERAL and "auto_map" not in config and not own


def _general(folder: Path, config: dict[str, Any], model: dict[str, Any]) -> _Opened:
    """What transformers' general class makes of a folder: tokenizer.json, and the special tokens that other files name
    beside it."""
    _check_growth(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = bool(config.get("split_special_tokens", False))
    added, named, more = _special_tokens(folder, config)
    written = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    tokens = [added[index] for index in sorted(added)]
    known = written | {token.content for token in tokens}
    for token in [*named.values(), *more]:
        if token.content not in known:
            known.add(token.content)
            tokens.append(token)
    for token in tokens:
        token.special = token.special or token.content in {one.content for one in named.values()}
    tokenizer.add_tokens(tokens)
    texts = {name: token.content for name, token in named.items()}
    special = {id for id, one in tokenizer.get_added_tokens_decoder().items() if one.special}
    for token in [*named.values(), *more]:
        if (id := tokenizer.token_to_id(token.content)) is not None:
            special.add(id)
    return _Opened(
        tokenizer=tokenizer,
        named={name: texts[name] for name in NAMED if name in texts},
        special_ids=frozenset(special),
        templates=_templates(folder, config),
        pairs_typed=_typed(config.get("model_input_names", ("token_type_ids",)), model),
        cut_left=config.get("truncation_side") == "left",
    )


def _special_tokens(
    folder: Path, config: dict[str, Any]
) -> tuple[dict[int, AddedToken], dict[str, AddedToken], list[AddedToken]]:
    """Tokens by the number they are listed under; the named ones; further special ones."""
    config = dict(config)
    added: dict[int, AddedToken] = {}
    if "added_tokens_decoder" in config:
        added = {int(index): _token(token) for index, token in config["added_tokens_decoder"].items()}
    else:
        for key, value in _json(folder / "special_tokens_map.json").items():
            if key in ("extra_special_tokens", "additional_special_tokens") and isinstance(value, list):
                value = [*(config.get(key) or []), *value]
            config[key] = value
        special = {_token(config[key]).content for key in NAMED if config.get(key)}
        special |= {_token(token).content for token in _further(config)}
        for content, index in _json(folder / "added_tokens.json").items():
            is_special = content in special
            added[index] = AddedToken(content, normalized=not is_special, special=is_special)
        for one in _json(folder / "tokenizer.json").get("added_tokens", []):
            added[one["id"]] = AddedToken(**{key: value for key, value in one.items() if key != "id"})
    by_content = {token.content: token for token in added.values()}
    named: dict[str, AddedToken] = {}
    for key, value in config.items():
        is_token = key in NAMED or (key.endswith("_token") and not key.startswith("add_"))
        if is_token and value and isinstance(value, str | dict):
            token = _token(value)
            named[key] = by_content.get(token.content, token)
    return added, named, [_token(token) for token in _further(config)]


def _further(config: dict[str, Any]) -> list[Any]:
    """Special tokens without a name that templates know."""
    more = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    return list(more.values()) if isinstance(more, dict) else list(more)


def _token(value: Any) -> AddedToken:
    if isinstance(value, AddedToken):
        return value
    if isinstance(value, str):
        return AddedToken(value, special=True)
    kept = {key: value[key] for key in ("content", "single_word", "lstrip", "rstrip", "normalized") if key in value}
    return AddedToken(**kept, special=value.get("special", True))


def _templates(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    """Chat templates by name: files go before those of the config."""
    found = {}
    if (folder / "chat_template.jinja").is_file():
        found["default"] = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    for file in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        found[file.stem] = file.read_text(encoding="utf-8")
    return found or _named_templates(config.get("chat_template"))


def _named_templates(saved: Any) -> dict[str, str]:
    if isinstance(saved, list):
        return {str(one["name"]): str(one["template"]) for one in saved}
    if isinstance(saved, dict):
        return {str(name): str(template) for name, template in saved.items()}
    return {"default": saved} if isinstance(saved, str) and saved else {}


def _by_transformers(folder: Path, config: dict[str, Any], model: dict[str, Any]) -> _Opened:
    """The folder as transformers opens it, which never runs code that the folder brings."""
    with imports_in_line():
        from transformers import AutoTokenizer
        from transformers.tokenization_utils_tokenizers import TokenizersBackend

    _check_growth(folder)
    notices = list[Notice]()
    if "auto_map" in config:
        message = "the folder brings tokenizer code of its own, which is never run here: tokenizer.json is read instead"
        notices.append(Notice(field="model", message=message))
        found = TokenizersBackend.from_pretrained(str(folder), local_files_only=True)
    else:
        found = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    tokenizer = getattr(found, "backend_tokenizer", None)
    if not isinstance(tokenizer, Tokenizer):
        message = f"{type(found).__name__} of {folder.name} cannot be used here; save it as a fast tokenizer"
        raise ModelError(message, str(folder), "tokenizer.json")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    saved = found.chat_template
    return _Opened(
        tokenizer=tokenizer,
        named=dict(found.special_tokens_map),
        special_ids=frozenset(found.all_special_ids)
        | {id for id, one in tokenizer.get_added_tokens_decoder().items() if one.special},
        templates=_named_templates(saved),
        pairs_typed=_typed(found.model_input_names, model),
        cut_left=found.truncation_side == "left",
        notices=tuple(notices),
    )


def _typed(names: Any, model: dict[str, Any]) -> bool:
    """Whether the tokenizer tells which text a token belongs to and the model has a place for it."""
    kinds = model.get("type_vocab_size")
    return "token_type_ids" in names and isinstance(kinds, int) and kinds >= 2


def _frame(tokenizer: Tokenizer) -> tuple[int, int]:
    added = tokenizer.encode("a").special_tokens_mask
    text = next((place for place, special in enumerate(added) if not special), len(added))
    return text, next((place for place, special in enumerate(reversed(added)) if not special), 0)


def _all_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _first(value: Any) -> int | None:
    return (value[0] if value else None) if isinstance(value, list) else value


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}
