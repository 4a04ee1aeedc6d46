"""The code that training scripts are put together from, as text. Knows nothing; :mod:`sweepkit.report.pieces` chooses."""

from __future__ import annotations

HUB = '''
def raw():
    """Return the rows as the hub has them."""
    if SPLITS:
        return DatasetDict({split: load_dataset(**DATA, split=name) for split, name in SPLITS.items()})
    loaded = load_dataset(**DATA)
    return DatasetDict({split: loaded[split] for split in ("train", "validation") if split in loaded})

'''
FILES = '''
def raw():
    """Return the rows as they stand in the files."""
    return DatasetDict(
        {
            split: load_dataset(FORMAT, data_files={split: files}, split=split, **READING)
            for split, files in FILES.items()
        }
    )

'''
FOLDERS = '''
def raw():
    """Return the pictures of the folders."""
    return DatasetDict(
        {split: load_dataset(FORMAT, data_dir=files[0], split="train") for split, files in FILES.items()}
    )

'''
CHOOSE = '''
def chosen(rows):
    """Return the columns that are used, under the names they have from here on."""
    rows = rows.select_columns(list(COLUMNS.values()))
    rows = rows.rename_columns({old: new for new, old in COLUMNS.items() if new != old})
    if DROP_DUPLICATES:
        kept = {split: ~part.to_pandas().astype(str).duplicated() for split, part in rows.items()}
        rows = DatasetDict({split: rows[split].select(kept[split].to_numpy().nonzero()[0]) for split in rows})
    return rows


def limited(rows):
    """Return the number of rows that was asked for, with a validation split."""
    if "validation" not in rows:
        train = rows["train"]
        aside = min(max(1, round(VALIDATION * len(train))), len(train) - 1)
        counts = Counter(train["labels"]) if STRATIFY else {}
        stratify = STRATIFY and min(counts.values()) >= 2 and len(counts) <= min(aside, len(train) - aside)
        column = "labels" if stratify else None
        parts = train.train_test_split(test_size=aside, seed=SPLIT_SEED, stratify_by_column=column)
        rows = DatasetDict({**rows, "train": parts["train"], "validation": parts["test"]})
    for split, most in SAMPLES.items():
        if most is not None and most < len(rows[split]):
            rows[split] = rows[split].shuffle(seed=SPLIT_SEED).select(range(most))
    return rows

'''
LABELS = '''
def numbered(rows):
    """Return the rows with class numbers for labels."""
    if isinstance(rows["train"].features["labels"], ClassLabel):
        return rows
    number = {name: index for index, name in enumerate(LABELS)}
    return rows.map(
        lambda row: {"labels": number[str(int(row["labels"]) if isinstance(row["labels"], float) else row["labels"])]},
        remove_columns=["labels"],
    ).cast_column("labels", ClassLabel(names=LABELS))

'''
TOKENS = '''
def tokens(batch):
    """Return a batch of texts as token ids."""
    texts = [[str(text) for text in batch[name]] for name in ("text", "text_pair") if name in batch]
    return tokenizer(*texts, truncation=MAX_LENGTH is not None, max_length=MAX_LENGTH)

'''
PICTURES = '''
def picture(value):
    """Return an array as channels × height × width."""
    array = np.asarray(value, dtype=np.float32)
    if array.ndim == 1:
        side = int(array.size**0.5)
        array = array.reshape(side, side)
    return (array[None] if array.ndim == 2 else array) / SCALE


def batch(processor, rows):
    """Return pictures as one batch."""
    pixels = processor([row["pixel_values"].convert("RGB") for row in rows], return_tensors="pt")
    return {**pixels, "labels": torch.tensor([row["labels"] for row in rows])}


def read():
    """Return the splits; arrays become pictures."""
    rows = limited(numbered(chosen(raw())))
    if isinstance(rows["train"].features["pixel_values"], Image):
        return rows
    return rows.map(lambda batch: {"pixel_values": [picture(v) for v in batch["pixel_values"]]}, batched=True)

'''
BLOCKS = '''
def pack(batch):
    """Return texts as blocks of equal length."""
    ids = tokenizer(batch[COLUMN], add_special_tokens=False, verbose=False)["input_ids"]
    end = [] if LINES or tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    tokens = list(chain.from_iterable([*text, *end] for text in ids))
    blocks = [tokens[start : start + BLOCK] for start in range(0, len(tokens) // BLOCK * BLOCK, BLOCK)]
    return {"input_ids": blocks, "labels": blocks}


def read():
    """Return the text in blocks, by split."""
    rows = raw().select_columns([COLUMN])
    if "validation" not in rows:
        train = rows["train"]
        cut = len(train) - min(max(1, round(VALIDATION * len(train))), len(train) - 1)
        parts = {"train": train.select(range(cut)), "validation": train.select(range(cut, len(train)))}
        rows = DatasetDict({**rows, **parts})
    rows = rows.map(pack, batched=True, batch_size=10_000, remove_columns=[COLUMN])
    for split, most in SAMPLES.items():
        if most is not None and most < len(rows[split]):
            rows[split] = rows[split].shuffle(seed=SPLIT_SEED).select(range(most))
    return rows

'''
CORRELATION = '''def correlation(test, labels, found):
    """Return a correlation; with a constant it is 0."""
    constant = len(labels) < 2 or np.ptp(labels) == 0 or np.ptp(found) == 0
    return 0.0 if constant else test(found, labels).statistic


'''
SCORES = {
    "accuracy": "sk.accuracy_score(labels, found)",
    "f1": "sk.f1_score(labels, found, **{options})",
    "precision": "sk.precision_score(labels, found, **{options})",
    "recall": "sk.recall_score(labels, found, **{options})",
    "matthews_correlation": "sk.matthews_corrcoef(labels, found)",
    "mse": "sk.mean_squared_error(labels, found)",
    "rmse": "sk.root_mean_squared_error(labels, found)",
    "mae": "sk.mean_absolute_error(labels, found)",
    "pearsonr": "correlation(stats.pearsonr, labels, found)",
    "spearmanr": "correlation(stats.spearmanr, labels, found)",
}
HEAD = """
HEAD = {
    "num_labels": len(LABELS),
    "id2label": dict(enumerate(LABELS)),
    "label2id": {name: number for number, name in enumerate(LABELS)},
    "problem_type": "single_label_classification",
}

"""
