"""A model of words for Dynamo's frontend and mocker: what they read of one, and no weights."""

import json
from pathlib import Path
from typing import Any

_END = "<|end|>"
_WORDS = {"[UNK]": 0, "word": 1, _END: 2}

_TOKENIZER: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [
        {"id": _WORDS[_END], "content": _END, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    ],
    "normalizer": None,
    "pre_tokenizer": {"type": "Whitespace"},
    "post_processor": None,
    "decoder": None,
    "model": {"type": "WordLevel", "vocab": _WORDS, "unk_token": "[UNK]"},
}
_FILES: dict[str, dict[str, Any]] = {
    "tokenizer.json": _TOKENIZER,
    "tokenizer_config.json": {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": _END,
        "model_max_length": 8192,
        "chat_template": "{% for message in messages %}{{ message['content'] }}{% endfor %}",
    },
    "config.json": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 4,
        "max_position_embeddings": 8192,
        "vocab_size": len(_WORDS),
        "bos_token_id": _WORDS[_END],
        "eos_token_id": _WORDS[_END],
    },
    "generation_config.json": {"eos_token_id": _WORDS[_END]},
}


def write(folder: Path) -> Path:
    """Write the model into *folder*, which is made; each word of a prompt is one token."""
    folder.mkdir()
    for name, content in _FILES.items():
        (folder / name).write_text(json.dumps(content))
    return folder
