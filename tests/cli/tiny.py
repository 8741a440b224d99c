"""A tiny random model with a tokenizer of its own, and the commands of a capture that takes a second."""

import subprocess
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import babelscope as bs
from babelscope.workflows import prompts_of

ROOT = Path(__file__).parents[2]
SOURCES = ("kfrd-arithmetic", "knowledge")
LANGUAGES = ("en", "de", "sw")
LAYERS = 2
LIMIT = 6

# Everything of a capture but the store and the model.
ARGUMENTS = (
    "--prompts", "kfrd-arithmetic", "--prompts", "knowledge", "--languages", "en,de,sw", "--limit", str(LIMIT),
    "--site", "resid.post", "--site", "mlp.act", "--position", "last", "--block-items", "4",
)  # fmt: skip
GRID = "threshold=0.1:0.9:0.2"


def save_model(folder: Path, *, context: int = 2048) -> Path:
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=LAYERS,
        num_attention_heads=4, max_position_embeddings=context, initializer_range=0.2, bos_token_id=0,
        eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_encoder(folder: Path) -> Path:
    """A tiny random BERT whose tokenizer has a separator and a mask."""
    made = _tokenizer()
    made.add_special_tokens({"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"})
    ids = [(t, made.convert_tokens_to_ids(t)) for t in ("[CLS]", "[SEP]")]
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ids
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(made), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=512, pad_token_id=made.pad_token_id,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    prompts, _ = prompts_of(SOURCES, languages=LANGUAGES, limit=LIMIT)
    raw.train_from_iterator(
        [p.text for p in prompts.prompts],
        trainers.BpeTrainer(
            vocab_size=800,
            special_tokens=["<s>", "</s>", "<pad>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def capture(store: Path, model: Path) -> Path:
    """What `ARGUMENTS` say, in Python."""
    bs.capture(
        store, model=str(model), prompts=list(SOURCES), languages=list(LANGUAGES), limit=LIMIT,
        sites=["resid.post", "mlp.act"], positions=["last"], block_items=4,
    )  # fmt: skip
    return store


def process(*arguments: object, cwd: Path, **options: object) -> subprocess.CompletedProcess[str]:
    """The command line as a process of its own."""
    command = [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False, **options)
