"""From rows to tokens: the tokenizer of a model's folder, chat templates, and which tokens are learned.

Tokens are those that transformers gives for the same folder; a mask says which of them count in the loss. No torch.
"""

from tuning.text.chat_template_process import template_omissions
from tuning.text.chat_templates import ChatTemplateError, ConversationError
from tuning.text.conversations import as_conversation
from tuning.text.encode import (
    TokenizedRow,
    encode_row,
    encode_rows,
    plain_prompt_ids,
    text_before_completion,
    tokenize_rows,
)
from tuning.text.rows import EncodedRow, Row, Turn, characters
from tuning.text.tokenizer import TextTokenizer, import_lock, tokenizer_files

__all__ = [
    "ChatTemplateError",
    "ConversationError",
    "EncodedRow",
    "Row",
    "TokenizedRow",
    "TextTokenizer",
    "Turn",
    "as_conversation",
    "characters",
    "encode_row",
    "encode_rows",
    "plain_prompt_ids",
    "text_before_completion",
    "import_lock",
    "tokenize_rows",
    "tokenizer_files",
    "template_omissions",
]
