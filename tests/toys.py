"""Tiny things shared by all tests: models that load in milliseconds, data that can be learnt. Knows no study."""

from __future__ import annotations

import csv
import random
import string
from collections.abc import Sequence
from pathlib import Path

TOY_TASKS = Path(__file__).with_name("toy_tasks.py")
"""The file of :class:`toy_tasks.Quadratic`, for ``path: <TOY_TASKS>:Quadratic``."""

WORDS = {
    "ham": ("meet", "lunch", "home", "tomorrow", "thanks", "mother", "late", "bus"),
    "spam": ("free", "prize", "win", "cash", "call", "urgent", "claim", "offer"),
}
COMMON = ("you", "the", "now", "to", "a", "is", "please", "today")


def vocabulary() -> dict[str, int]:
    """Return token → id of the toy WordPiece vocabulary: all toy words whole, everything else letter by letter."""
    characters = string.ascii_lowercase + string.digits + ".,!?'"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{c}" for c in characters)]
    tokens += [word for words in (*WORDS.values(), COMMON) for word in words if word not in tokens]
    return {token: number for number, token in enumerate(tokens)}


def tiny_bert(folder: Path) -> Path:
    """Write a BERT (2 layers of 32, random weights that are always the same) with its tokenizer; return the folder."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    tokenizer = BertTokenizer(vocab=vocabulary(), model_max_length=64)
    config = BertConfig(
        vocab_size=len(vocabulary()),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def tiny_gpt2(folder: Path) -> Path:
    """Write a GPT-2 (2 layers of 32, random weights that are always the same) with its tokenizer; return the folder."""
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = {token: number for number, token in enumerate(["<|endoftext|>", *alphabet])}
    bytewise = Tokenizer(BPE(vocab=letters, merges=[]))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytewise, bos_token="<|endoftext|>", eos_token="<|endoftext|>", model_max_length=64
    )
    config = GPT2Config(
        vocab_size=len(letters), n_positions=64, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def tiny_t5(folder: Path) -> Path:
    """Write a T5 (2 layers of 32, random weights that are always the same) with a token per toy word; return the folder."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    words = [*COMMON, *(word for each in WORDS.values() for word in each)]
    ids = {word: number for number, word in enumerate(["<pad>", "</s>", "<unk>", *words])}
    wordwise = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    wordwise.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wordwise.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=wordwise, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=64
    )
    config = T5Config(
        vocab_size=len(ids), d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def messages(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Return (text, label) pairs, half ``ham`` and half ``spam``; the words give the label away."""
    dice = random.Random(seed)
    found: dict[str, str] = {}
    while len(found) < count:
        label = ("ham", "spam")[len(found) % 2]
        words = [*dice.choices(WORDS[label], k=3), *dice.choices(COMMON, k=3)]
        dice.shuffle(words)
        found.setdefault(" ".join(words), label)
    return list(found.items())


def tiny_csv(path: Path, rows: int = 64, *, seed: int = 0, columns: Sequence[str] = ("text", "label")) -> Path:
    """Write a csv with a header and ``rows`` messages with string labels that can be learnt from the text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(messages(rows, seed))
    return path
