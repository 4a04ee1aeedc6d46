"""The parts of a training script that differ by kind of task: how rows are read, models made, metrics computed.

What is written here does what the kind of the same name does in :mod:`sweepkit.tasks`; tests hold both together. Knows no
study's space and no trial.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweepkit.report import snippets
from sweepkit.report.parts import PACKAGE, Parts, longest, measures, place
from sweepkit.study.errors import InputError
from sweepkit.study.study import StudyData
from sweepkit.tasks import Task


def objective(metric: str) -> tuple[str, str]:
    """Return the metric to look for in the Trainer's log, and the value it stands for: perplexity is that of the loss."""
    return ("eval_loss", "math.exp(value)") if metric == "eval_perplexity" else (metric, "value")


def adapter(task: Task) -> str:
    """Return the lines that put a LoRA adapter on the model."""
    return f"""\
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(model, LoraConfig(**{{"task_type": {task.peft_task_type!r}, **LORA}}))
"""


def own_task(task: Task, study: StudyData, folder: Path) -> tuple[Parts, list[Path]]:
    """Return the parts for a task of one's own, and the files copied beside the script."""
    options = task.model_dump(mode="json", by_alias=True, exclude_unset=True)
    kind, module, name = type(task), task.arguments_type.partition(":")[0], task.arguments_type.partition(":")[2]
    imports = [f"from {module} import {name}", "from pathlib import Path"]
    if study.task.path is not None:
        file = (study.home / study.task.path.rpartition(":")[0]).expanduser().resolve()
        copied = [folder / (file.name if file.stem.isidentifier() and file.stem != "train" else "task.py")]
        imports.append("import sys")
        load = f"""\
sys.path.append({str(file.parent)!r})  # where what the task imports from beside it lies
    from {copied[0].stem} import {kind.__name__}

    task = {kind.__name__}(**OPTIONS)"""
    else:
        assert study.task.pickle is not None
        file, copied = study.home / study.task.pickle, [folder / "task.pickle"]
        imports += ["import pickle"]
        load = 'task = pickle.loads(Path(__file__).with_name("task.pickle").read_bytes())(**OPTIONS)'
    shutil.copyfile(file, copied[0])
    keywords = """\
        processing_class=task.processing_class(),
        data_collator=task.data_collator(),
        compute_metrics=task.compute_metrics,
        callbacks=[],"""
    parts = Parts(
        imports=imports,
        constants={"OPTIONS": options, "HOME": str(study.home)},
        prepare=f"    {load}\n    task._home = Path(HOME)\n    splits = task.splits",
        model="task.model_init(**MODEL_CONFIG)",
        arguments=name,
        trainer="task.trainer",
        keywords=keywords,
        but=f" but for the base class of {copied[0].name}",
    )
    parts.needs = [*parts.needs, "sweepkit"]
    return parts, copied


def of_kind(kind: str, task: Any, model: Path, prepared: Path) -> Parts:
    """Return the parts for a built-in kind; ``prepared`` is the folder of its prepared data.

    Raises InputError for one that no script is known for.
    """
    writers = {
        "text-classification": _text_classification,
        "text-regression": _text_regression,
        "image-classification": _image_classification,
        "causal-lm": _causal_lm,
    }
    if kind not in writers:
        raise InputError(f"no training script is known for the kind {kind}")
    parts = Parts(imports=["from transformers import Trainer, TrainingArguments"])
    _weights(parts, task)
    _source(parts, task)
    if kind.endswith("classification"):
        parts.constants["LABELS"] = _classes(prepared)
        parts.code = snippets.HEAD + parts.code
    writers[kind](parts, task, model)
    parts.constants["REMOTE"] = {"trust_remote_code": True} if task.trust_remote_code else {}
    return parts


def _weights(parts: Parts, task: Any) -> None:
    """BASE: the model's folder or id, or its configuration; TOKENIZER: where its tokenizer lies."""
    ref = task.model
    if isinstance(ref, str):
        parts.constants["BASE"] = place(parts, ref, task.home)
    else:
        parts.constants["BASE"] = dict(ref.config)
        tokenizer = ref.tokenizer
        parts.constants["TOKENIZER"] = place(parts, tokenizer, task.home) if tokenizer else None


def _load_model(auto: str, task: Any, config: str) -> str:
    """The code of ``fresh(**config)``."""
    if isinstance(task.model, str):
        body = f"    values = {{'dtype': torch.float32, **{config}, **MODEL_CONFIG, **REMOTE}}\n"
        body += f"    return {auto}.from_pretrained(BASE, **values)"
    else:
        body = (
            "    values = dict(BASE)\n"
            f"    config = CONFIG_MAPPING[values.pop('model_type')](**{{**values, **{config}, **MODEL_CONFIG}})\n"
            f"    return {auto}.from_config(config, dtype=MODEL_CONFIG.get('dtype', torch.float32))"
        )
    return f'def fresh():\n    """Return the model before training."""\n{body}\n'


def _source(parts: Parts, task: Any) -> None:
    """``raw()``: the rows as they stand in the source, by split."""
    source = task.source
    parts.imports += ["from datasets import DatasetDict, load_dataset"]
    if source.name is not None:
        given = {
            split: getattr(source, split) for split in ("train", "validation") if getattr(source, split) is not None
        }
        if given and "train" not in given:
            given = {"train": "train", **given}
        parts.constants["DATA"] = {"path": source.name, "name": source.config, "revision": source.revision}
        parts.constants["SPLITS"] = {s: "+".join([n] if isinstance(n, str) else n) for s, n in given.items()}
        parts.code += snippets.HUB
        return
    from sweepkit.tasks.data import _builder

    found = source.files(task.home)
    format_, options = _builder(source, [file for listed in found.values() for file in listed])
    found.pop("test", None)
    given = {"train": source.path if source.path is not None else source.train, "validation": source.validation}
    packaged = {
        split: place(parts, text, task.home)
        for split, text in given.items()
        if isinstance(text, str) and text.startswith(PACKAGE)
    }
    parts.constants["FILES"] = {split: packaged.get(split, files) for split, files in found.items()}
    parts.constants["FORMAT"], parts.constants["READING"] = format_, options
    parts.code += snippets.FOLDERS if format_ == "imagefolder" else snippets.FILES


def _rows(parts: Parts, task: Any, columns: Mapping[str, str], *, stratify: bool) -> None:
    parts.imports += ["from collections import Counter"]
    parts.constants |= {
        "COLUMNS": dict(columns),
        "DROP_DUPLICATES": task.source.drop_duplicates,
        "VALIDATION": task.validation,
        "STRATIFY": stratify,
        "SAMPLES": {"train": task.train_samples, "validation": task.eval_samples},
        "SPLIT_SEED": task.split_seed,
    }
    parts.code += snippets.CHOOSE


def _text(parts: Parts, task: Any, model: Path, *, stratify: bool) -> None:
    """What classification and regression of texts share."""
    names = [task.text] if isinstance(task.text, str) else list(task.text)
    columns = dict(zip(("text", "text_pair"), names, strict=False)) | {"labels": task.label}
    _rows(parts, task, columns, stratify=stratify)
    parts.imports += ["from transformers import AutoModelForSequenceClassification, AutoTokenizer", "import torch"]
    parts.imports += ["from transformers import DataCollatorWithPadding"]
    parts.constants["MAX_LENGTH"] = task.max_length or longest(task, model)
    parts.code += snippets.TOKENS
    parts.keywords = """\
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=compute_metrics,"""
    parts.model = "fresh()"
    _tokenizer(parts, task)


def _tokenizer(parts: Parts, task: Any) -> None:
    if not isinstance(task.model, str):
        parts.imports += ["from transformers import CONFIG_MAPPING"]
    where = "BASE" if isinstance(task.model, str) else "TOKENIZER"
    parts.prepare = f"""\
    global tokenizer
    tokenizer = AutoTokenizer.from_pretrained({where}, **REMOTE)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    splits = read()"""


def _text_classification(parts: Parts, task: Any, model: Path) -> None:
    _text(parts, task, model, stratify=True)
    parts.imports += ["from datasets import ClassLabel"]
    parts.code += snippets.LABELS
    parts.code += f'''
def read():
    """Return the tokenised splits."""
    rows = limited(numbered(chosen(raw())))
    return rows.map(tokens, batched=True, remove_columns=[n for n in ("text", "text_pair") if n in COLUMNS])


{_load_model("AutoModelForSequenceClassification", task, "HEAD")}

{measures(parts, task, "scores.argmax(axis=-1)")}'''
    _pad(parts)


def _pad(parts: Parts) -> None:
    parts.code = parts.code.replace(
        "def fresh():",
        "def padded(model):\n"
        '    """Return the model, knowing its padding token."""\n'
        "    if model.config.pad_token_id is None:\n"
        "        model.config.pad_token_id = tokenizer.pad_token_id\n"
        "    return model\n\n\ndef fresh():",
    )
    parts.model = "padded(fresh())"


def _text_regression(parts: Parts, task: Any, model: Path) -> None:
    _text(parts, task, model, stratify=False)
    parts.imports += ["from datasets import Value", "import numpy as np"]
    parts.constants["NORMALIZE"] = task.normalize
    config = "{'num_labels': 1, 'problem_type': 'regression'}"
    parts.code += f'''
def read():
    """Return the tokenised splits; labels are learnt in units of their deviation where that was asked for."""
    global mean, deviation
    rows = limited(chosen(raw()).cast_column("labels", Value("float32")))
    rows = rows.map(tokens, batched=True, remove_columns=[n for n in ("text", "text_pair") if n in COLUMNS])
    labels = np.asarray(rows["train"]["labels"], dtype=np.float64)
    mean, deviation = (float(labels.mean()), float(labels.std()) or 1.0) if NORMALIZE else (0.0, 1.0)
    if NORMALIZE:
        scale = lambda row: {{"labels": (row["labels"] - mean) / deviation}}
        rows = rows.map(scale).cast_column("labels", Value("float32"))
    return rows


{_load_model("AutoModelForSequenceClassification", task, config)}

{measures(parts, task, "scores[..., 0] * deviation + mean", "labels * deviation + mean")}'''
    _pad(parts)


def _image_classification(parts: Parts, task: Any, model: Path) -> None:
    _rows(parts, task, {"pixel_values": task.image, "labels": task.label}, stratify=True)
    parts.imports += ["from datasets import ClassLabel, Image", "import torch"]
    parts.imports += ["from transformers import AutoModelForImageClassification", "import numpy as np"]
    parts.constants |= {"SCALE": task.scale}
    parts.code += snippets.LABELS + snippets.PICTURES
    pictures = (model / "preprocessor_config.json").exists()
    parts.prepare = "    splits = read()"
    if not isinstance(task.model, str):
        parts.imports += ["from transformers import CONFIG_MAPPING"]
    if pictures:
        parts.imports += ["from transformers import AutoImageProcessor", "from pathlib import Path"]
        parts.prepare += '\n    processor = AutoImageProcessor.from_pretrained(Path(__file__).with_name("model"))'
        parts.keywords = (
            "        processing_class=processor,\n        data_collator=lambda rows: batch(processor, rows),\n"
        )
    parts.keywords += "        compute_metrics=compute_metrics,"
    parts.model = "fresh()"
    parts.code += f"""
{_load_model("AutoModelForImageClassification", task, "HEAD")}

{measures(parts, task, "scores.argmax(axis=-1)")}"""


def _causal_lm(parts: Parts, task: Any, model: Path) -> None:
    parts.imports += ["from itertools import chain", "import torch", "import numpy as np"]
    parts.imports += ["from transformers import AutoModelForCausalLM, AutoTokenizer, default_data_collator"]
    lines = parts.constants.get("FORMAT") == "text"
    parts.constants |= {
        "COLUMN": task.text,
        "BLOCK": task.block_size,
        "VALIDATION": task.validation,
        "SAMPLES": {"train": task.train_samples, "validation": task.eval_samples},
        "SPLIT_SEED": task.split_seed,
        "LINES": lines,
    }
    _tokenizer(parts, task)
    compared = [entry for entry in task.metrics if entry not in ("perplexity", {"perplexity": {}})]
    parts.code += (
        snippets.BLOCKS
        + f"""
{_load_model("AutoModelForCausalLM", task, "{}")}
"""
    )
    parts.model = "fresh()"
    parts.keywords = "        processing_class=tokenizer,\n        data_collator=default_data_collator,"
    if compared:
        copy = task.model_copy(update={"metrics": compared})
        parts.code += f"""
{measures(parts, copy, "scores[:, :-1].reshape(-1)", "labels[:, 1:].reshape(-1)", classes=3)}"""
        parts.keywords += """
        compute_metrics=compute_metrics,
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(dim=-1),"""


def _classes(prepared: Path) -> list[str]:
    """The classes' names, as the prepared data has them."""
    known = json.loads((prepared / "train" / "dataset_info.json").read_text())
    return list(known["features"]["labels"]["names"])
