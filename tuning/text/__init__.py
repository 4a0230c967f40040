"""From rows to tokens: the tokenizer as its folder says, chat templates, and which tokens are learned.

Tokens are those that transformers gives for the same folder; a mask says which of them count in the loss. No torch.
"""

from tuning.text.chat_template_process import unwritten_of
from tuning.text.chat_templates import ChatTemplateError, ConversationError
from tuning.text.conversations import as_conversation
from tuning.text.encode import Spelled, encode_row, encode_rows, framed_question, headed, spell_rows
from tuning.text.rows import Encoded, Row, Turn, characters
from tuning.text.tokenizer import TextTokenizer, imports_in_line, tokenizer_files

__all__ = [
    "ChatTemplateError",
    "ConversationError",
    "Encoded",
    "Row",
    "Spelled",
    "TextTokenizer",
    "Turn",
    "as_conversation",
    "characters",
    "encode_row",
    "encode_rows",
    "framed_question",
    "headed",
    "imports_in_line",
    "spell_rows",
    "tokenizer_files",
    "unwritten_of",
]
