"""A model folder's tokenizer: token ids, and begin, end and pad tokens, equal to those of transformers.

Where the folder names the general tokenizer class, the `tokenizers` package alone does what transformers would, so that
counting tokens imports nothing heavy. Where it names another class (LlamaTokenizer, BertTokenizer, ...), that class may
build its tokenizer otherwise than tokenizer.json says, and transformers opens it.
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

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""The special tokens that chat templates know by name."""
GENERAL_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Tokenizer classes that read tokenizer.json as it is."""
MODEL_TYPES_WITH_OWN_CLASS = (
    "hyperclovax_vision_v2",
    "qwen2",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_5_moe_text",
    "qwen4_exp",
    "siglip2",
)
"""Values of model_type for which transformers takes their own tokenizer class whatever class the folder names."""
SECONDS = 60.0
"""How long a tokenizer may take for the texts of one call; usual ones read a million characters a second."""
QUICK_CHARACTERS = 4_000
"""Characters below which texts are tokenized without a time limit: waiting for a thread would cost more."""
MOST_GROWTH = 100
"""How many characters a tokenizer may make of one before it finds tokens; usual ones make one to three."""
Result = TypeVar("Result")
_imports = threading.Lock()


@contextmanager
def import_lock() -> Iterator[None]:
    """A lock for importing transformers: of two threads that import it at once, one gets a half-made module."""
    with _imports:
        yield


@dataclass(frozen=True, slots=True)
class _TokenizerFolder:
    """A tokenizer as the files of its folder describe it."""

    tokenizer: Tokenizer
    named: dict[str, str]
    """The text of the special tokens that the folder has, by name."""
    special_ids: frozenset[int]
    templates: dict[str, str]
    """Chat templates by name; a single one is named `default`."""
    pairs_typed: bool
    """Whether the model reads which of two texts a token belongs to (token_type_ids)."""
    cut_left: bool
    """Whether a text that is too long loses its beginning (truncation_side)."""
    notices: tuple[Notice, ...] = ()
    timeouts: list[str] = field(default_factory=list)
    """The text on which the tokenizer did not end, in words; it is not used again then."""


class TextTokenizer:
    """A model folder's tokenizer. Raises ModelError where it cannot be read."""

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        self.version = (str(folder), _file_versions(folder))
        """The folder with the times and sizes of its files: equal for tokenizers that give the same tokens."""
        self._opened = _open(*self.version)
        self._tokenizer, named = self._opened.tokenizer, self._opened.named
        self.bos_id = self._id_of(named.get("bos_token"))
        self.eos_id = self._id_of(named.get("eos_token"))
        model = _json(folder / "config.json")
        self.pad_id = self._padding(named.get("pad_token"), model.get("vocab_size"))
        unknown = getattr(self._tokenizer.model, "unk_token", named.get("unk_token"))  # GPT-2 names one it never writes
        self.unknown_id = self._id_of(unknown)
        """The token for text that the vocabulary does not cover; None where it covers all text, or has no such
        token."""
        self.special_ids = self._opened.special_ids
        self.notices = self._opened.notices
        """What in the folder is read otherwise than it is written."""
        self.chat = ChatTemplates(self._opened.templates, self._opened.named)
        self.chat_template: str | None = self._opened.templates.get("default")
        self.frame = _frame(self._tokenizer)
        """How many special tokens the tokenizer puts before a text, and behind it."""
        self.config_bos_id = _first(model.get("bos_token_id")) if self.bos_id is None else self.bos_id
        self.config_eos_id = _first(model.get("eos_token_id")) if self.eos_id is None else self.eos_id
        """End token by data.special_tokens `config`, as `config_bos_id` is the begin token: that of the tokenizer, else
        that of config.json."""
        ends = {self.eos_id, *_as_list(model.get("eos_token_id"))}
        ends |= set(_as_list(_json(folder / "generation_config.json").get("eos_token_id")))
        self.end_ids = frozenset(id for id in ends if isinstance(id, int))
        """All tokens at which a model of this folder stops writing."""
        end = named.get("eos_token") or ""
        self.end_text = end if self.eos_id is not None and self.encode(end) == [self.eos_id] else ""
        """The text that is tokenized as the end token; empty where no text is."""

    def _padding(self, token: str | None, size: Any) -> int:
        """The id of the padding token, or of another token that has an embedding: padding is masked out of loss and
        attention. `size` is the vocab_size of config.json."""
        choices = [id for id in (self._id_of(token), self.eos_id, 0) if id is not None]
        return next((id for id in choices if not isinstance(size, int) or id < size), 0)

    def _id_of(self, token: str | None) -> int | None:
        return None if token is None else self._tokenizer.token_to_id(token)

    # -- facts -----------------------------------------------------------------------------------------------------
    @property
    def size(self) -> int:
        """How many different tokens there are, added ones included."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    @property
    def largest_id(self) -> int:
        """The largest token id; an embedding matrix needs one row more than that."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=0)

    @property
    def has_chat_template(self) -> bool:
        return bool(self._opened.templates)

    @property
    def pairs_typed(self) -> bool:
        """Whether the folder's model reads which of two texts a token belongs to (token_type_ids)."""
        return self._opened.pairs_typed

    @property
    def cuts_left(self) -> bool:
        """Whether a text that is too long loses its beginning (truncation_side)."""
        return self._opened.cut_left

    # -- texts to tokens ------------------------------------------------------------------------------------------
    def encode(self, text: str) -> list[int]:
        """Token ids of the text alone, without special tokens around it."""
        return list(
            self._within_time_limit(partial(self._tokenizer.encode, text, add_special_tokens=False), [text]).ids
        )

    def encode_with_specials(self, text: str) -> list[int]:
        """Token ids of the text with the tokenizer's special tokens around it (BERT's [CLS] and [SEP])."""
        return list(self._within_time_limit(partial(self._tokenizer.encode, text), [text]).ids)

    def encodings(self, texts: Sequence[str], specials: bool, *, offsets: bool = False) -> list[Encoding]:
        """Encodings of many texts, with the tokenizer's own special tokens around each where `specials` is true; with
        `offsets` each encoding has the characters of its tokens."""
        encode = self._tokenizer.encode_batch if offsets else self._tokenizer.encode_batch_fast
        return list(self._within_time_limit(partial(encode, list(texts), add_special_tokens=specials), texts))

    def pair_encodings(self, pairs: Sequence[tuple[str, str | None]]) -> list[Encoding]:
        """Encodings of texts, or pairs of them, as a classifier reads them: with special tokens, and the text that each
        token belongs to."""
        inputs = [first if second is None else (first, second) for first, second in pairs]
        texts = [text for pair in pairs for text in pair if text is not None]
        encode = partial(self._tokenizer.encode_batch_fast, inputs, add_special_tokens=True)
        return list(self._within_time_limit(encode, texts))

    def _within_time_limit(self, encode: Callable[[], Result], texts: Sequence[str]) -> Result:
        """The result of `encode` for these texts. Raises ModelError where the tokenizer fails on them, or takes longer
        than `SECONDS`: its regular expressions are programs that a model folder brings, and some never end."""
        if self._opened.timeouts:
            raise self._unusable(self._opened.timeouts[0])
        try:
            if sum(map(len, texts)) < QUICK_CHARACTERS:
                return encode()
            result = Future[Result]()
            threading.Thread(target=_set_result, args=(result, encode), name="tokens", daemon=True).start()
            return result.result(SECONDS)
        except TimeoutError:  # its thread cannot be ended: one is left behind, and no more
            self._opened.timeouts.append(f"it did not end within {SECONDS:g} s on {sum(map(len, texts)):,} characters")
            raise self._unusable(self._opened.timeouts[0]) from None
        except BaseException as error:  # the package panics where a regular expression gives up: no Exception
            if isinstance(error, Exception) or type(error).__name__ == "PanicException":
                raise self._unusable(f"it fails on a text: {_first_line(error)}") from None
            raise

    def _unusable(self, why: str) -> ModelError:
        message = f"the model's tokenizer cannot be used: {why}; choose another model"
        return ModelError(message, "tokenizer.json", "a tokenizer that reads any text")

    def piece(self, token: int) -> str | None:
        """The token as the vocabulary writes it; None for an id that the vocabulary lacks."""
        return self._tokenizer.id_to_token(token)

    def decode(self, ids: list[int]) -> str:
        """The text of token ids, without special tokens."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    # -- conversations --------------------------------------------------------------------------------------------
    def render_chat(
        self, messages: list[dict[str, Any]], add_generation_prompt: bool, tools: list[Any] | None = None
    ) -> str:
        """The conversation as the model's chat template writes it. Raises DataError naming what failed."""
        return render_chat(self.chat, messages, add_generation_prompt, tools)

    @cached_property
    def written_end(self) -> str:
        """The end token's text where the chat template ends each answer with a special token; else empty. An end token
        that an answer itself has would be a second one there."""
        if not self.end_text or not self.has_chat_template:
            return ""
        answer = "answer"
        try:
            text = self.render_chat([{"role": "user", "content": "a"}, {"role": "assistant", "content": answer}], False)
        except DataError:
            return ""
        ids = self.encode(text.rpartition(answer)[2])
        return self.end_text if any(id in self.special_ids for id in ids) else ""


# -- opening a folder -------------------------------------------------------------------------------------------------
def tokenizer_files(folder: Path) -> list[Path]:
    """All files of a folder that can change a token: those read here, and vocabularies that transformers reads for some
    classes."""
    patterns = ("*.json", "*.jinja", "additional_chat_templates/*.jinja", "*.model", "vocab.*", "merges.txt")
    files = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    return sorted(file for file in files if not file.name.endswith(".index.json"))


def _file_versions(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, times and sizes of all files that are read: when one changes, the folder is opened anew."""
    stats = [(file.name, file.stat()) for file in tokenizer_files(folder)]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


@lru_cache(maxsize=4)
def _open(path: str, file_versions: Any) -> _TokenizerFolder:
    """The tokenizer of a folder, cached until one of its files changes. Raises ModelError."""
    folder = Path(path)
    config, model = _json(folder / "tokenizer_config.json"), _json(folder / "config.json")
    try:
        if _opens_with_general_class(config, model):
            return _open_general(folder, config, model)
        return _open_with_transformers(folder, config, model)
    except ModelError:
        raise
    except Exception as error:  # the packages raise what comes: bare exceptions, KeyError, TypeError
        message = f"the tokenizer of {folder.name} cannot be read: {_first_line(error)}"
        raise ModelError(message, path, "a tokenizer that transformers opens") from None


def _check_growth(folder: Path) -> None:
    """Raises ModelError where the normalizer or the decoder of tokenizer.json makes a text much longer than it is: a
    few lines of JSON would fill the memory."""
    plain, growth = _json(folder / "tokenizer.json"), 1.0
    unread = [plain.get("normalizer"), plain.get("decoder")]
    while unread:
        component = unread.pop()
        if not isinstance(component, dict):
            continue
        unread += [*(component.get("normalizers") or ()), *(component.get("decoders") or ())]
        if component.get("type") == "Replace":
            pattern = component.get("pattern") or {}
            growth *= max(1.0, len(component.get("content") or "") / max(1, len(pattern.get("String") or " ")))
        if growth > MOST_GROWTH:
            message = (
                f"the tokenizer of {folder.name} makes more than {MOST_GROWTH} characters of one before it reads a text"
            )
            raise ModelError(message, "tokenizer.json", f"at most {MOST_GROWTH} characters for one")


def _set_result(result: Future[Result], encode: Callable[[], Result]) -> None:
    try:
        result.set_result(encode())
    except BaseException as error:  # raised again in the thread that waits
        result.set_exception(error)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else repr(error)


def _opens_with_general_class(config: dict[str, Any], model: dict[str, Any]) -> bool:
    """Whether transformers would take tokenizer.json of this folder as it is."""
    own = {model.get("model_type"), model.get("model_name")} & set(MODEL_TYPES_WITH_OWN_CLASS)
    return config.get("tokenizer_class") in GENERAL_CLASSES and "auto_map" not in config and not own


def _open_general(folder: Path, config: dict[str, Any], model: dict[str, Any]) -> _TokenizerFolder:
    """The tokenizer that transformers' general class makes of a folder: tokenizer.json, and the special tokens that
    other files name beside it."""
    _check_growth(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = bool(config.get("split_special_tokens", False))
    added, named, unnamed = _special_tokens(folder, config)
    specials = [*named.values(), *unnamed]
    tokenizer.add_tokens(_tokens_to_add(tokenizer, added, specials, {token.content for token in named.values()}))
    return _TokenizerFolder(
        tokenizer=tokenizer,
        named={name: named[name].content for name in NAMED_TOKENS if name in named},
        special_ids=_special_ids(tokenizer, specials),
        templates=_templates(folder, config),
        pairs_typed=_reads_token_types(config.get("model_input_names", ("token_type_ids",)), model),
        cut_left=config.get("truncation_side") == "left",
    )


def _tokens_to_add(
    tokenizer: Tokenizer, added: dict[int, AddedToken], specials: list[AddedToken], named: set[str]
) -> list[AddedToken]:
    """The added tokens by their ids, and behind them the special tokens that neither they nor the tokenizer have;
    `named` are the texts of tokens that are special whatever their record says."""
    tokens = [added[id] for id in sorted(added)]
    texts = {token.content for token in [*tokenizer.get_added_tokens_decoder().values(), *tokens]}
    for token in specials:
        if token.content not in texts:
            texts.add(token.content)
            tokens.append(token)
    for token in tokens:
        token.special = token.special or token.content in named
    return tokens


def _special_ids(tokenizer: Tokenizer, specials: list[AddedToken]) -> frozenset[int]:
    """The ids of the added tokens that are special, and of these tokens as far as the vocabulary has them."""
    own = {id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    ids = (tokenizer.token_to_id(token.content) for token in specials)
    return frozenset(own | {id for id in ids if id is not None})


def _special_tokens(
    folder: Path, config: dict[str, Any]
) -> tuple[dict[int, AddedToken], dict[str, AddedToken], list[AddedToken]]:
    """Added tokens by id, special tokens by name, and further special tokens, which have no name."""
    if "added_tokens_decoder" in config:
        added = {int(id): _added_token(token) for id, token in config["added_tokens_decoder"].items()}
    else:
        config = _with_special_tokens_map(folder, config)
        added = _tokens_of_other_files(folder, config)
    by_content = {token.content: token for token in added.values()}
    named: dict[str, AddedToken] = {}
    for name, value in config.items():
        if _names_a_token(name) and value and isinstance(value, str | dict):
            token = _added_token(value)
            named[name] = by_content.get(token.content, token)
    return added, named, [_added_token(token) for token in _unnamed_tokens(config)]


def _names_a_token(key: str) -> bool:
    """Whether this key of a tokenizer's config holds a special token."""
    return key in NAMED_TOKENS or (key.endswith("_token") and not key.startswith("add_"))


def _with_special_tokens_map(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The config with the members of special_tokens_map.json in place of its own; lists of tokens are joined."""
    merged = dict(config)
    for key, value in _json(folder / "special_tokens_map.json").items():
        if key in ("extra_special_tokens", "additional_special_tokens") and isinstance(value, list):
            value = [*(merged.get(key) or []), *value]
        merged[key] = value
    return merged


def _tokens_of_other_files(folder: Path, config: dict[str, Any]) -> dict[int, AddedToken]:
    """Added tokens by id, from added_tokens.json and tokenizer.json."""
    special = {_added_token(config[name]).content for name in NAMED_TOKENS if config.get(name)}
    special |= {_added_token(token).content for token in _unnamed_tokens(config)}
    added: dict[int, AddedToken] = {}
    for content, id in _json(folder / "added_tokens.json").items():
        added[id] = AddedToken(content, normalized=content not in special, special=content in special)
    for record in _json(folder / "tokenizer.json").get("added_tokens", []):
        added[record["id"]] = AddedToken(**{key: value for key, value in record.items() if key != "id"})
    return added


def _unnamed_tokens(config: dict[str, Any]) -> list[Any]:
    """The special tokens of a tokenizer's config that have no name."""
    tokens = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    return list(tokens.values()) if isinstance(tokens, dict) else list(tokens)


def _added_token(value: Any) -> AddedToken:
    """A token from its text or its record in a config."""
    if isinstance(value, AddedToken):
        return value
    if isinstance(value, str):
        return AddedToken(value, special=True)
    options = {key: value[key] for key in ("content", "single_word", "lstrip", "rstrip", "normalized") if key in value}
    return AddedToken(**options, special=value.get("special", True))


def _templates(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    """Chat templates by name: those of files, else those of the config."""
    templates = {}
    if (folder / "chat_template.jinja").is_file():
        templates["default"] = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    for file in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        templates[file.stem] = file.read_text(encoding="utf-8")
    return templates or _named_templates(config.get("chat_template"))


def _named_templates(saved: Any) -> dict[str, str]:
    """Chat templates by name, from the member `chat_template` of a config: a text, a list or an object."""
    if isinstance(saved, list):
        return {str(record["name"]): str(record["template"]) for record in saved}
    if isinstance(saved, dict):
        return {str(name): str(template) for name, template in saved.items()}
    return {"default": saved} if isinstance(saved, str) and saved else {}


def _open_with_transformers(folder: Path, config: dict[str, Any], model: dict[str, Any]) -> _TokenizerFolder:
    """The folder as transformers opens it, which never runs code that the folder brings."""
    with import_lock():
        from transformers import AutoTokenizer
        from transformers.tokenization_utils_tokenizers import TokenizersBackend

    _check_growth(folder)
    notices = list[Notice]()
    if "auto_map" in config:
        message = "the folder brings tokenizer code of its own, which is never run here: tokenizer.json is read instead"
        notices.append(Notice(field="model", message=message))
        opened = TokenizersBackend.from_pretrained(str(folder), local_files_only=True)
    else:
        opened = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    tokenizer = getattr(opened, "backend_tokenizer", None)
    if not isinstance(tokenizer, Tokenizer):
        message = f"{type(opened).__name__} of {folder.name} cannot be used here; save it as a fast tokenizer"
        raise ModelError(message, str(folder), "tokenizer.json")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return _TokenizerFolder(
        tokenizer=tokenizer,
        named=dict(opened.special_tokens_map),
        special_ids=frozenset(opened.all_special_ids)
        | {id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special},
        templates=_named_templates(opened.chat_template),
        pairs_typed=_reads_token_types(opened.model_input_names, model),
        cut_left=opened.truncation_side == "left",
        notices=tuple(notices),
    )


def _reads_token_types(names: Any, model: dict[str, Any]) -> bool:
    """Whether the tokenizer gives token_type_ids and the model has embeddings for them."""
    kinds = model.get("type_vocab_size")
    return "token_type_ids" in names and isinstance(kinds, int) and kinds >= 2


def _frame(tokenizer: Tokenizer) -> tuple[int, int]:
    """How many special tokens a tokenizer puts before a text, and behind it."""
    mask = tokenizer.encode("a").special_tokens_mask
    before = next((i for i, special in enumerate(mask) if not special), len(mask))
    return before, next((i for i, special in enumerate(reversed(mask)) if not special), 0)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _first(value: Any) -> int | None:
    """A token id of a config; the first of several."""
    return (value[0] if value else None) if isinstance(value, list) else value


def _json(file: Path) -> dict[str, Any]:
    """The object in a file; empty where the file is missing or holds none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}
