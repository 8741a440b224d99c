"""What `capture.py` runs its arms on: prompts, and random models of two shapes."""

import functools
import os
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
import transformers
from capture_arms import Setting
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import babelscope as bs
from babelscope import hooks
from babelscope.hooks.tokens import encode
from babelscope.schema import Prompt, PromptSet
from babelscope.training.tokenizer import train_tokenizer

SHAPES = {
    "small": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8,
              "vocab_size": 8000, "max_position_embeddings": 1024},
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
           "vocab_size": 32000, "max_position_embeddings": 2048},
}  # fmt: skip
LANGUAGES = ("en", "de", "fr", "it", "ru", "pl", "ar", "he", "zh", "ja")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def random_prompts(languages: int, items: int, vocabulary: int) -> tuple[PromptSet, PreTrainedTokenizerFast]:
    """Prompts of 20-112 random tokens that share nothing, and a tokenizer that reads them word by word."""
    rng = np.random.default_rng(1)
    words = {"<pad>": 0, "<unk>": 1} | {f"t{i}": i for i in range(2, vocabulary)}
    raw = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    lengths = np.clip(np.round(np.exp(rng.normal(np.log(52), 0.4, (languages, items)))), 20, 112).astype(int)
    made = [
        Prompt(f"i{i}", LANGUAGES[k], " ".join(f"t{t}" for t in rng.integers(2, vocabulary, lengths[k, i])))
        for k in range(languages)
        for i in range(items)
    ]
    return PromptSet("random", tuple(made)), PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>")


def generated(name: str, languages: list[str], items: int, span: range) -> tuple[PromptSet, PreTrainedTokenizerFast]:
    """Prompts of this project as a byte-level tokenizer reads them, items that lie in `span` in every language."""
    prompts, _ = bs.prompts([name], languages=languages, limit=5 * items)
    tokenizer = train_tokenizer(["x"], 262)
    length = {(p.item, p.language): len(tokenizer(p.text)["input_ids"]) for p in prompts.prompts}
    kept = [i for i in prompts.items if all(length[i, g] in span for g in languages)][:items]
    return PromptSet(name, tuple(p for p in prompts.prompts if p.item in set(kept))), tokenizer


WORKLOADS = {
    "short": lambda: random_prompts(5, 60, 8000),
    "many": lambda: random_prompts(5, 300, 8000),  # what a capture costs once, spread over five times the prompts
    "kfrd": lambda: generated("kfrd-arithmetic", ["fr", "ja", "ar"], 64, range(225, 287)),
    "logical": lambda: generated("kfrd-logical", ["en", "fr", "de"], 32, range(360, 620)),
    "gpu": lambda: random_prompts(10, 200, 32000),
}


@functools.cache
def weights(dtype: str, shape: str, device: str) -> tempfile.TemporaryDirectory[str]:
    """A folder with a random model, written once for all workloads."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.manual_seed(0)
    folder = tempfile.TemporaryDirectory(dir="/dev/shm" if device != "cpu" else None)  # 13 GB that need no disk
    with torch.device(device):
        model = LlamaForCausalLM._from_config(LlamaConfig(**SHAPES[shape], pad_token_id=0), dtype=DTYPES[dtype])
    model.save_pretrained(folder.name)
    return folder


def prepare(workload: str, dtype: str, shape: str, device: str, budget: int) -> Setting:
    prompts, tokenizer = WORKLOADS[workload]()
    folder = weights(dtype, shape, device).name
    tokenizer.save_pretrained(folder)
    loaded = hooks.load_model(folder, device=device)
    return Setting(loaded, prompts, budget, encode(loaded.tokenizer, [p.text for p in prompts.prompts]))
