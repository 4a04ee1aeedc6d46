"""Formatting for people: values, settings, durations, sizes and counts, on a terminal and in the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

ABBREVIATIONS = {
    "learning_rate": "lr",
    "per_device_train_batch_size": "bs",
    "gradient_accumulation_steps": "accum",
    "num_train_epochs": "epochs",
    "max_steps": "steps",
    "weight_decay": "wd",
    "warmup_ratio": "warmup",
    "warmup_steps": "warmup",
    "lr_scheduler_type": "schedule",
    "label_smoothing_factor": "smoothing",
    "max_grad_norm": "clip",
    "adam_beta1": "beta1",
    "adam_beta2": "beta2",
    "adam_epsilon": "eps",
    "peft.type": "adapter",
    "peft.lora_alpha": "alpha",
    "peft.lora_dropout": "lora_drop",
    "model.hidden_dropout_prob": "dropout",
    "task.max_length": "length",
}
"""Hyperparameter → short name in tables, run names and one-line configurations."""


def value(number: float | None) -> str:
    """Return a metric's value with four decimals or significant digits; a dash for None.

    >>> value(0.91234), value(123456.0), value(0.00001234), value(None)
    ('0.9123', '1.235e5', '1.234e-5', '–')
    """
    if number is None:
        return "–"
    return f"{number:.4f}" if number == 0 or 1e-3 <= abs(number) < 1e3 else _exponent(f"{number:.4g}")


def metrics(found: Mapping[str, Any]) -> str:
    """Return an evaluation's metrics in one line, without its timings.

    >>> metrics({"test_f1": 0.91234, "test_runtime": 2.1, "test_samples_per_second": 190.0})
    'test_f1 0.9123'
    """
    timing = ("_runtime", "_per_second", "_preparation_time")
    return ", ".join(
        f"{name} {value(number)}"
        for name, number in found.items()
        if isinstance(number, (int, float)) and not name.endswith(timing)
    )


def difference(number: float) -> str:
    """Return a signed difference.

    >>> difference(0.0512), difference(-2.5)
    ('+0.0512', '-2.5000')
    """
    return ("+" if number >= 0 else "-") + value(abs(number))


def setting(content: Any, *, width: int = 24) -> str:
    """Return a hyperparameter's value, at most ``width`` characters long.

    >>> [setting(content) for content in (3.1234e-05, 0.0002, 16, 0.3, True, ["q", "v"], "cosine")]
    ['3.12e-5', '2e-4', '16', '0.3', 'true', '["q", "v"]', 'cosine']
    """
    if isinstance(content, float):
        small = 0 < abs(content) < 1e-2
        text = _exponent(f"{content:.2e}") if small else _exponent(f"{content:.3g}")
    else:
        text = content if isinstance(content, str) else json.dumps(content, default=str)
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _exponent(text: str) -> str:
    mantissa, e, power = text.partition("e")
    if not e:
        return text
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(power)}"


def name(hyperparameter: str) -> str:
    """Return a hyperparameter's short name: abbreviated, or without its consumer's prefix.

    >>> name("learning_rate"), name("model.attention_dropout"), name("optim")
    ('lr', 'attention_dropout', 'optim')
    """
    return ABBREVIATIONS.get(hyperparameter, hyperparameter.rpartition(".")[2])


def settings(params: Mapping[str, Any]) -> str:
    """Return a configuration in one line.

    >>> settings({"learning_rate": 3e-05, "per_device_train_batch_size": 16})
    'lr=3e-5 bs=16'
    """
    return " ".join(f"{name(key)}={setting(content)}" for key, content in params.items())


def span(seconds: float) -> str:
    """Return a duration in its two largest units.

    >>> span(0.4), span(8), span(21.3), span(221), span(7500), span(200000)
    ('0.4 s', '8 s', '21 s', '3 min 41 s', '2 h 05 min', '2 d 7 h')
    """
    if seconds < 10 and not isinstance(seconds, int):
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_rest = divmod(minutes, 60)
    if not minutes:
        return f"{rest} s"
    if not hours:
        return f"{minutes} min {rest:02d} s"
    return f"{hours} h {minutes_rest:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def time_left(seconds: float) -> str:
    """Return an estimate of the time left, no more exact than it can be.

    >>> time_left(8.4), time_left(221), time_left(7500)
    ('about 8 s left', 'about 4 min left', 'about 2 h 05 min left')
    """
    minutes = round(seconds / 60)
    text = span(max(1, int(seconds))) if seconds < 60 else f"{minutes} min" if minutes < 60 else span(60 * minutes)
    return f"about {text} left"


def size(count: float) -> str:
    """Return a number of bytes in decimal units (1 kB is 1000 bytes).

    >>> size(0), size(1500), size(91_000_000), size(4.2e9)
    ('0 kB', '2 kB', '91 MB', '4.2 GB')
    """
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def join(parts: Sequence[str]) -> str:
    """Return the parts as a list in words.

    >>> join(["1", "2", "3"])
    '1, 2 and 3'
    """
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun.

    >>> plural(1, "trial"), plural(3, "trial")
    ('1 trial', '3 trials')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
