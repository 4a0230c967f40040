"""Chat templates in the shapes of well-known ones, written for these tests; ⟦ and ⟧ stand around what an assistant
says, for a reference that is told where that is."""

from __future__ import annotations

import json
import re
from pathlib import Path

from support.tokenizer_folders import byte_level

CALLS = "{% for call in m.tool_calls %}<tool_call>\n{{ call.function | tojson }}\n</tool_call>{% endfor %}"
TOOLS = "{% if tools %}# Tools\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}{% endif %}"
SHAPES = {
    "ChatML": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}⟦{{ m.content }}<|im_end|>⟧"
        "{% else %}{{ m.content }}<|im_end|>{% endif %}{{ '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "Llama 2": (
        "{% if messages[0].role == 'system' %}{% set head = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' %}"
        "{% set talk = messages[1:] %}{% else %}{% set head = '' %}{% set talk = messages %}{% endif %}"
        "{% for m in talk %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}"
        "{% if m.role == 'user' %}{{ bos_token }}[INST] {{ (head if loop.first else '') + m.content.strip() }} [/INST]"
        "{% elif m.role == 'assistant' %}⟦ {{ m.content.strip() }} {{ eos_token }}⟧{% endif %}{% endfor %}"
    ),
    "Llama 3": (
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
        "{% if m.role == 'assistant' %}⟦{{ m.content | trim }}<|eot_id|>⟧{% else %}{{ m.content | trim }}<|eot_id|>"
        "{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    ),
    "Gemma": (
        "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{% for m in messages %}{% if m.role == 'assistant' %}"
        "<start_of_turn>model\n⟦{{ m.content | trim }}<end_of_turn>⟧"
        "{% else %}<start_of_turn>{{ m.role }}\n{{ m.content | trim }}<end_of_turn>{% endif %}{{ '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    ),
    "Mistral": (  # tools and the system prompt stand before the last question, so earlier text changes
        "{% if messages[0].role == 'system' %}{% set head = messages[0].content + '\\n\\n' %}"
        "{% set talk = messages[1:] %}"
        "{% else %}{% set head = '' %}{% set talk = messages %}{% endif %}"
        "{% set asked = talk | selectattr('role', 'equalto', 'user') | list | length %}{% set ns = namespace(n=0) %}"
        "{{ bos_token }}{% for m in talk %}{% if m.role == 'user' %}{% set ns.n = ns.n + 1 %}"
        "{% if ns.n == asked and tools %}[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
        "[INST] {{ (head if ns.n == asked else '') + m.content }}[/INST]"
        "{% elif m.role == 'assistant' and m.tool_calls %}⟦[TOOL_CALLS] {{ m.tool_calls | tojson }}{{ eos_token }}⟧"
        "{% elif m.role == 'assistant' %}⟦ {{ m.content }}{{ eos_token }}⟧"
        "{% elif m.role == 'tool' %}[TOOL_RESULTS] {{ m.content | tojson }}[/TOOL_RESULTS]{% endif %}{% endfor %}"
    ),
    "Qwen 3": (  # thinking is kept behind the last question only
        "{% if tools %}<|im_start|>system\n" + TOOLS + "<|im_end|>\n{% endif %}"
        "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}"
        "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
        "{% for m in messages %}{% if m.role == 'assistant' %}{% set content = m.content %}"
        "{% set thought = m.reasoning_content or '' %}{% if '</think>' in content %}"
        "{% set thought = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}"
        "{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}<|im_start|>assistant\n⟦"
        "{% if loop.index0 > ns.last %}<think>\n{{ thought.strip('\\n') }}\n</think>\n\n{{ content }}"
        "{% else %}{{ content }}{% endif %}{% if m.tool_calls %}" + CALLS + "{% endif %}<|im_end|>⟧\n"
        "{% elif m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n</tool_response><|im_end|>\n"
        "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "Phi 3": (
        "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>\n⟦{{ m.content }}<|end|>⟧"
        "{% else %}<|{{ m.role }}|>\n{{ m.content }}<|end|>{% endif %}{{ '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
    ),
    "Zephyr": (
        "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>\n⟦{{ m.content + eos_token }}⟧\n"
        "{% else %}<|{{ m.role }}|>\n{{ m.content + eos_token }}\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    ),
    "Command R": (
        "{{ bos_token }}{% for m in messages %}<|START_OF_TURN_TOKEN|>{% if m.role == 'assistant' %}<|CHATBOT_TOKEN|>"
        "⟦{{ m.content.strip() }}<|END_OF_TURN_TOKEN|>⟧{% else %}"
        "{{ '<|USER_TOKEN|>' if m.role == 'user' else '<|SYSTEM_TOKEN|>' }}{{ m.content.strip() }}<|END_OF_TURN_TOKEN|>"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}"
    ),
    "gpt-oss": (  # the last answer ends otherwise than earlier ones, whose thinking is taken out
        "{% for m in messages %}{% if m.role == 'assistant' %}<|start|>assistant⟦"
        "{% if m.thinking and loop.last %}<|channel|>analysis<|message|>{{ m.thinking }}<|end|><|start|>assistant"
        "{% endif %}"
        "{% if m.tool_calls %}<|channel|>commentary to={{ m.tool_calls[0].function.name }}<|message|>"
        "{{ m.tool_calls[0].function.arguments | tojson }}<|call|>{% else %}"
        "<|channel|>final<|message|>{{ m.content }}{{ '<|return|>' if loop.last else '<|end|>' }}{% endif %}⟧"
        "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
    ),
    "GLM": (  # nothing ends an answer but the next turn
        "[gMASK]<sop>{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>\n⟦{{ m.content }}⟧"
        "{% elif m.role == 'tool' %}<|observation|>\n{{ m.content }}"
        "{% else %}<|{{ m.role }}|>\n{{ m.content }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    ),
    "Nemotron": (
        "<extra_id_0>System\n{% for m in messages %}{% if m.role == 'system' %}{{ m.content.strip() }}{% endif %}"
        "{% endfor %}\n{% for m in messages %}{% if m.role == 'user' %}<extra_id_1>User\n{{ m.content.strip() }}\n"
        "{% elif m.role == 'assistant' %}<extra_id_1>Assistant\n⟦{{ m.content.strip() }}<extra_id_2>⟧\n{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<extra_id_1>Assistant\n{% endif %}"
    ),
    "R1": (  # thinking is taken out of every answer, and asked for at the end
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}"
        "<|User|>{{ m.content }}{% elif m.role == 'assistant' %}<|Assistant|>⟦{{ m.content.split('</think>')[-1] }}"
        "{{ eos_token }}⟧{% endif %}{% endfor %}{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
    ),
}
OTHER = ("[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[gMASK]")
SPECIAL = sorted(
    set(re.findall(r"<\|\w+\|>|<extra_id_\d>|<(?:start|end)_of_turn>|<sop>", "".join(SHAPES.values())))
    | {f"<|{role}|>" for role in ("user", "system", "assistant", "observation", "tool")}
    | {*OTHER, "[/TOOL_RESULTS]"}
)


def plain(template: str) -> str:
    """The template without marks."""
    return template.replace("⟦", "").replace("⟧", "")


def marked(template: str) -> str:
    """The template with `generation` blocks in place of the marks."""
    begun = template.replace("⟦", "{% generation %}")
    return begun.replace("⟧\n", "⟧{{ '\\n' }}").replace("⟧", "{% endgeneration %}")  # a line end behind a block is lost


def chat_folder(folder: Path, template: str, ends: tuple[str, ...] = ()) -> Path:
    """A folder with a byte-level tokenizer that has the special tokens of all shapes, and this template; `ends` are
    tokens at which its model stops besides the tokenizer's own."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = byte_level()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(
        json.dumps({"model_type": "llama", "eos_token_id": [tokenizer.token_to_id(token) for token in ("</s>", *ends)]})
    )
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder
