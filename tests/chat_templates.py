"""Chat templates as well-known model families write them, each with a tokenizer that knows its
markers."""

from pathlib import Path
from typing import NamedTuple

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast


class Family(NamedTuple):
    """A template, the markers that are single tokens, and the tokens that begin and end a text."""

    template: str
    markers: tuple[str, ...]
    eos: str
    bos: str | None = None
    adds_bos: bool = True
    """Whether the tokenizer begins a text with ``bos``: SmolLM2's, whose ``bos`` opens a turn, does
    not."""


CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN = (
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}"
    "{%- endif %}{%- for message in messages %}{%- if message.role == 'user' or message.role == 'assistant' %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
SMOLLM = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA32 = (
    "{{- bos_token }}{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content']|trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system_message = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}{{- 'Cutting Knowledge Date: December 2023\n' }}"
    "{{- 'Today Date: 26 Jul 2024\n\n' }}{{- system_message }}{{- '<|eot_id|>' }}{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
PHI3 = (
    "{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}"
    "{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}"
    "{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}"
    "{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
SPACED = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}"
    "{% else %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% endif %}{% endfor %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% endif %}{% endfor %}"
)

OLMO = (
    "{{ eos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '<|user|>\n' + message['content'] + '\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ '<|assistant|>\n' + message['content'] + eos_token + '\n' }}{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"
)
OLMO2 = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ '<|system|>\n' + message['content'] + '\n' }}"
    "{% elif message['role'] == 'user' %}{{ '<|user|>\n' + message['content'] + '\n' }}{% elif message['role'] == 'assistant' %}"
    "{% if not loop.last %}{{ '<|assistant|>\n' + message['content'] + eos_token + '\n' }}{% else %}"
    "{{ '<|assistant|>\n' + message['content'] + eos_token }}{% endif %}{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"
)
OLMO3 = (
    "{%- set has_system = messages|selectattr('role', 'equalto', 'system')|list|length > 0 -%}{%- if not has_system -%}"
    "{{- '<|im_start|>system\nYou are Olmo, a helpful AI assistant built by Ai2. Your date cutoff is December 2024.<|im_end|>\n' -}}"
    "{%- endif -%}{%- for message in messages -%}{{- '<|im_start|>' + message['role'] + '\n' + message['content'] -}}"
    "{%- if message['role'] == 'assistant' and loop.last -%}{{- eos_token -}}{%- else -%}{{- '<|im_end|>\n' -}}{%- endif -%}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
ZEPHYR = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"
)
GRANITE = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}{%- set loop_messages = messages[1:] %}"
    "{%- else %}{%- set system_message = 'Knowledge Cutoff Date: April 2024.\nToday\\'s Date: ' + strftime_now('%B %d, %Y') + '.\n"
    "You are Granite, developed by IBM. You are a helpful AI assistant.' %}{%- set loop_messages = messages %}{%- endif %}"
    "{{- '<|start_of_role|>system<|end_of_role|>' + system_message + '<|end_of_text|>\n' }}{%- for message in loop_messages %}"
    "{{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] + '<|end_of_text|>\n' }}"
    "{%- if loop.last and add_generation_prompt %}{{- '<|start_of_role|>assistant<|end_of_role|>' }}{%- endif %}{%- endfor %}"
)
SMOLLM3 = (
    "{%- if messages[0].role == 'system' %}{%- set custom = messages[0].content.replace('/no_think', '').rstrip() %}"
    "{%- set rest = messages[1:] %}{%- else %}{%- set custom = 'You are a helpful AI assistant named SmolLM, trained by Hugging Face.' %}"
    "{%- set rest = messages %}{%- endif %}{{- '<|im_start|>system\n## Metadata\n\nKnowledge Cutoff Date: June 2025\nToday Date: ' "
    "+ strftime_now('%d %B %Y') + '\nReasoning Mode: /no_think\n\n## Custom Instructions\n\n' + custom + '\n\n<|im_end|>\n' }}"
    "{%- for message in rest %}{%- if message.role == 'user' %}{{- '<|im_start|>user\n' + message.content + '<|im_end|>\n' }}"
    "{%- elif message.role == 'assistant' %}"
    "{{- '<|im_start|>assistant\n<think>\n\n</think>\n' + message.content.lstrip('\n') + '<|im_end|>\n' }}"
    "{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n<think>\n\n</think>\n' }}{%- endif %}"
)
INSTRUCTION = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System messages are not allowed in this template.') }}"
    "{% endif %}{{ 'You are an exceptionally intelligent coding assistant.\n\n' }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '### Instruction\n' + message['content'] + '\n\n' }}{% else %}"
    "{{ '### Response\n' + message['content'] + eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}"
    "{{ '### Response\n' }}{% endif %}"
)
COHERE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}"
    "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% if system_message != false %}"
    "{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + system_message + '<|END_OF_TURN_TOKEN|>' }}{% endif %}"
    "{% for message in loop_messages %}"
    "{% set content = message['content'] %}{% if message['role'] == 'user' %}"
    "{{ '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% elif message['role'] == 'assistant' %}"
    "{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' + content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"
)
GLM4 = (
    "{{ '[gMASK]<sop>' }}{%- for message in messages %}{%- if message.role == 'system' %}{{ '<|system|>\n' + message.content }}"
    "{%- elif message.role == 'user' %}{{ '<|user|>\n' + message.content }}{%- elif message.role == 'assistant' %}"
    "{{ '<|assistant|>\n' + message.content }}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{%- endif %}"
)
EXAONE4 = (
    "{%- for message in messages %}{{- '[|' + message.role + '|]\n' }}{%- if message.role == 'assistant' %}"
    "{{- message.content + '[|endofturn|]\n' }}{%- else %}{{- message.content + '[|endofturn|]\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '[|assistant|]\n<think>\n\n</think>\n\n' }}{%- endif %}"
)
NEMOTRON = (
    "{{'<extra_id_0>System'}}{% for message in messages %}{% if message['role'] == 'system' %}{{'\n' + message['content'].strip()}}"
    "{% if loop.first %}{{'\n'}}{% endif %}{% endif %}{% endfor %}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '\n<extra_id_1>User\n' + message['content'].strip() }}{% elif message['role'] == 'assistant' %}"
    "{{ '\n<extra_id_1>Assistant\n' + message['content'].strip() }}{% endif %}{% endfor %}"
    "{%- if add_generation_prompt %}{{'\n<extra_id_1>Assistant\n'}}{%- endif %}"
)
ERNIE = (
    "{{- '<|begin_of_sentence|>' }}{%- for message in messages %}{%- if message['role'] == 'user' %}"
    "{{- 'User: ' + message['content'] + '\n' }}"
    "{%- elif message['role'] == 'assistant' %}{{- 'Assistant: ' + message['content'] + '<|end_of_sentence|>' }}"
    "{%- elif message['role'] == 'system' %}{{- message['content'] + '\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- 'Assistant: ' }}{%- endif %}"
)
APERTUS = (
    "{{ bos_token }}{%- if messages[0].role == 'system' %}{{- '<|system_start|>' + messages[0].content + '<|system_end|>' }}"
    "{%- set rest = messages[1:] %}{%- else %}"
    "{{- '<|system_start|>You are Apertus, a helpful assistant created by the SwissAI initiative.\n"
    "Knowledge cutoff: 2024-04\nCurrent date: ' + strftime_now('%Y-%m-%d') + '<|system_end|>' }}{%- set rest = messages %}{%- endif %}"
    "{{- '<|developer_start|>Deliberation: disabled\nTool Capabilities: disabled<|developer_end|>' }}{%- for message in rest %}"
    "{%- if message.role == 'user' %}{{- '<|user_start|>' + message.content + '<|user_end|>' }}{%- else %}"
    "{{- '<|assistant_start|>' + message.content + '<|assistant_end|>' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant_start|>' }}{%- endif %}"
)
GEMMA3 = (
    "{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}{%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}"
    "{%- set loop_messages = messages[1:] -%}{%- else -%}{%- set first_user_prefix = '' -%}{%- set loop_messages = messages -%}"
    "{%- endif -%}"
    "{%- for message in loop_messages -%}{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{%- endif -%}"
    "{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}"
    "{{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else '') }}{{ message['content'] | trim }}"
    "{{ '<end_of_turn>\n' }}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
)
QWEN3 = (
    "{%- if messages[0].role == 'system' %}{{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}{%- endif %}"
    "{%- set ns = namespace(last=0) %}{%- for message in messages %}{%- if message.role == 'user' %}{%- set ns.last = loop.index0 %}"
    "{%- endif %}{%- endfor %}{%- for message in messages %}{%- if message.role == 'user' %}"
    "{{- '<|im_start|>user\n' + message.content + '<|im_end|>\n' }}{%- elif message.role == 'assistant' %}{%- if loop.index0 > ns.last %}"
    "{{- '<|im_start|>assistant\n<think>\n\n</think>\n\n' + message.content + '<|im_end|>\n' }}{%- else %}"
    "{{- '<|im_start|>assistant\n' + message.content + '<|im_end|>\n' }}{%- endif %}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
SEED = (
    "{%- for message in messages %}{%- set role = 'system' if message.role == 'system' else message.role %}"
    "{{ bos_token + role + '\n' + message.content + eos_token }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{ bos_token + 'assistant\n' }}{%- endif %}"
)
HUNYUAN = (
    "{{ '<｜hy_begin▁of▁sentence｜>' }}{%- if messages[0]['role'] == 'system' %}"
    "{{- messages[0]['content'] + '<｜hy_place▁holder▁no▁3｜>' }}"
    "{%- set rest = messages[1:] %}{%- else %}{%- set rest = messages %}{%- endif %}{%- for message in rest %}"
    "{%- if message['role'] == 'user' %}{{- '<｜hy_User｜>' + message['content'] }}{%- else %}"
    "{{- '<｜hy_Assistant｜>' + message['content'] + '<｜hy_place▁holder▁no▁2｜>' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<｜hy_Assistant｜>' }}{%- endif %}"
)
PHI2 = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] + '\n' }}{% elif message['role'] == 'user' %}"
    "{{ 'Instruct: ' + message['content'] + '\n' }}{% else %}{{ 'Output: ' + message['content'] + eos_token + '\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Output:' }}{% endif %}"
)
FALCON = (
    "{% for message in messages %}{% if not loop.first %}{{ '\n' }}{% endif %}{% if message['role'] == 'system' %}"
    "{{ 'System: ' + message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ 'User: ' + message['content'] }}{% elif message['role'] == 'assistant' %}"
    "{{ 'Falcon: ' + message['content'] + eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '\nFalcon:' }}{% endif %}"
)
OASST = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ '<|system|>' + message['content'] + eos_token }}"
    "{% elif message['role'] == 'user' %}{{ '<|prompter|>' + message['content'] + eos_token }}{% else %}"
    "{{ '<|assistant|>' + message['content'] + eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|assistant|>' }}{% endif %}"
)
MISTRAL3 = (
    "{%- if messages[0].role == 'system' %}{%- set system = messages[0].content %}{%- set turns = messages[1:] %}{%- else %}"
    "{%- set turns = messages %}{%- endif %}{{- bos_token }}{%- for turn in turns %}{%- if turn.role == 'user' %}"
    "{%- if loop.last and system is defined %}{{- '[INST] ' + system + '\n\n' + turn.content + ' [/INST]' }}{%- else %}"
    "{{- '[INST] ' + turn.content + ' [/INST]' }}{%- endif %}{%- else %}{{- ' ' + turn.content + eos_token }}{%- endif %}{%- endfor %}"
)
"""The system text stands in the last turn alone, and only if that is a question."""

IM = ("<|im_start|>", "<|im_end|>")
HEADERS = ("<|start_header_id|>", "<|end_header_id|>")
FAMILIES = {
    "chatml": Family(CHATML, IM, "<|im_end|>"),
    "qwen2.5": Family(QWEN, IM, "<|im_end|>"),
    "smollm2": Family(SMOLLM, IM, "<|im_end|>", "<|im_start|>", adds_bos=False),
    "llama3": Family(LLAMA3, HEADERS, "<|eot_id|>", "<|begin_of_text|>"),
    "llama3.2": Family(LLAMA32, HEADERS, "<|eot_id|>", "<|begin_of_text|>"),
    "gemma": Family(GEMMA, ("<start_of_turn>", "<end_of_turn>"), "<eos>", "<bos>"),
    "phi3": Family(
        PHI3, ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), "<|endoftext|>", "<s>"
    ),
    "mistral": Family(MISTRAL, (), "</s>", "<s>"),
    "spaced": Family(SPACED, (), "</s>", "<s>"),
    "olmo": Family(OLMO, (), "<|endoftext|>"),
    "olmo2": Family(OLMO2, (), "<|endoftext|>", "<|endoftext|>", adds_bos=False),
    "olmo3": Family(OLMO3, IM, "<|endoftext|>"),
    "zephyr": Family(ZEPHYR, (), "</s>", "<s>"),
    "granite": Family(
        GRANITE, ("<|start_of_role|>", "<|end_of_role|>"), "<|end_of_text|>", adds_bos=False
    ),
    "smollm3": Family(SMOLLM3, (*IM, "<think>", "</think>"), "<|im_end|>"),
    "instruction": Family(INSTRUCTION, (), "<|endoftext|>", "<|endoftext|>", adds_bos=False),
    "cohere": Family(
        COHERE,
        ("<|START_OF_TURN_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"),
        "<|END_OF_TURN_TOKEN|>",
        "<BOS_TOKEN>",
    ),
    "glm4": Family(
        GLM4,
        ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"),
        "<|endoftext|>",
    ),
    "exaone4": Family(
        EXAONE4, ("[|system|]", "[|user|]", "[|assistant|]", "<think>", "</think>"), "[|endofturn|]"
    ),
    "nemotron": Family(NEMOTRON, ("<extra_id_0>", "<extra_id_1>"), "</s>", "<s>", adds_bos=False),
    "ernie": Family(ERNIE, (), "<|end_of_sentence|>", "<|begin_of_sentence|>", adds_bos=False),
    "apertus": Family(
        APERTUS,
        (
            *("<|system_start|>", "<|system_end|>", "<|developer_start|>", "<|developer_end|>"),
            *("<|user_start|>", "<|user_end|>", "<|assistant_start|>"),
        ),
        "<|assistant_end|>",
        "<s>",
    ),
    "gemma3": Family(GEMMA3, ("<start_of_turn>", "<end_of_turn>"), "<eos>", "<bos>"),
    "qwen3": Family(QWEN3, IM, "<|im_end|>"),
    "seed": Family(SEED, (), "<seed:eos>", "<seed:bos>", adds_bos=False),
    "hunyuan": Family(
        HUNYUAN,
        ("<｜hy_User｜>", "<｜hy_Assistant｜>", "<｜hy_place▁holder▁no▁3｜>"),
        "<｜hy_place▁holder▁no▁2｜>",
        "<｜hy_begin▁of▁sentence｜>",
    ),
    "phi2": Family(PHI2, (), "<|endoftext|>"),
    "falcon": Family(FALCON, (), "<|endoftext|>"),
    "oasst": Family(OASST, ("<|system|>", "<|prompter|>", "<|assistant|>"), "<|endoftext|>"),
    "mistral3": Family(MISTRAL3, ("[INST]", "[/INST]"), "</s>", "<s>"),
}


def save_tokenizer(family: Family, folder: Path) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of the family's markers and one merge, without which llama.cpp loads no
    vocabulary."""
    names = [*family.markers, family.eos, *([family.bos] if family.bos else [])]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(
        models.BPE({text: at for at, text in enumerate([*alphabet, "th"])}, [("t", "h")])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in dict.fromkeys(names)]
    )
    if family.bos and family.adds_bos:
        first = (family.bos, tokenizer.token_to_id(family.bos))
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A", special_tokens=[first]
        )
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=family.bos,
        eos_token=family.eos,
        clean_up_tokenization_spaces=False,
    )
    made.chat_template = family.template
    folder.mkdir(parents=True, exist_ok=True)
    made.save_pretrained(folder)
    return made
