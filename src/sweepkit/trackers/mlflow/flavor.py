"""Writes the MLflow description of a Hugging Face folder without torch, which MLflow's own function would load.

The folder becomes ``model/`` of MLflow's transformers flavor. MLflow expects the tokenizer or image processor in a folder
of its own; its files are hard links, so that nothing is stored twice.
"""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mlflow.models import Model
from mlflow.models.signature import ModelSignature
from mlflow.types.schema import ColSpec, Schema, TensorSpec

from sweepkit.study.files import link_or_copy

MODEL = "model"
"""Folder of the weights in the MLflow model; the name the transformers flavor expects."""

PIPELINES = {
    "ForSequenceClassification": ("text-classification", "tokenizer"),
    "ForTokenClassification": ("token-classification", "tokenizer"),
    "ForMaskedLM": ("fill-mask", "tokenizer"),
    "ForCausalLM": ("text-generation", "tokenizer"),
    "LMHeadModel": ("text-generation", "tokenizer"),
    "ForImageClassification": ("image-classification", "image_processor"),
    "ForAudioClassification": ("audio-classification", "feature_extractor"),
}
"""Suffix of the model class's name → its pipeline, and the component that the pipeline needs."""

COMPONENTS = {
    "tokenizer": ("AutoTokenizer", ("tokenizer_config.json", "tokenizer.json", "vocab.txt")),
    "image_processor": ("AutoImageProcessor", ("preprocessor_config.json", "processor_config.json")),
    "feature_extractor": ("AutoFeatureExtractor", ("preprocessor_config.json", "processor_config.json")),
}
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf")
LIBRARIES = ("mlflow", "transformers", "torch", "accelerate")


def write(folder: Path, weights: Path, *, run_id: str, model_id: str, example: Any = None) -> str:
    """Write everything of an MLflow model but its weights into ``folder``; return how to load it, for people.

    ``weights`` is the Hugging Face folder. ``example`` is one input of the model, as plain JSON data.
    """
    loads_with, options = _transformers_flavor(weights)
    components = options.get("components", [])
    folder.mkdir(parents=True, exist_ok=True)
    for component in components:
        _link(weights, folder / "components" / component)
    flavors: dict[str, Any] = {}
    if options:
        flavors["transformers"] = {**options, "transformers_version": version("transformers"), "code": None}
    if components:
        environment = {"virtualenv": "python_env.yaml"}
        python = {"loader_module": "mlflow.transformers", "python_version": platform.python_version()}
        flavors["python_function"] = {**python, "model_binary": MODEL, "env": environment}
        _requirements(folder)
    model = Model(
        artifact_path=folder.as_uri(),
        run_id=run_id,
        model_id=model_id,
        model_uuid=model_id,
        flavors=flavors,
        signature=_signature(options["task"]) if components else None,
        model_size_bytes=sum(file.stat().st_size for file in weights.rglob("*") if file.is_file()),
        metadata={"loads_with": loads_with},
    )
    if example is not None and components:
        (folder / "input_example.json").write_text(json.dumps(example))
        (folder / "serving_input_example.json").write_text(json.dumps({"inputs": example}))
        model.saved_input_example_info = {
            "artifact_path": "input_example.json",
            "serving_input_path": "serving_input_example.json",
            "type": "json_object",
        }
    model.save(str(folder / "MLmodel"))
    return loads_with


def _transformers_flavor(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return how to load a folder, and the options of MLflow's transformers flavor; empty if it cannot load the folder."""
    if (folder / "modules.json").exists():
        return "sentence-transformers: SentenceTransformer(<folder>/model)", {}
    if (folder / "adapter_config.json").exists():
        return "peft: PeftModel.from_pretrained(base, <folder>/model)", {}
    try:
        config = json.loads((folder / "config.json").read_text())
        architecture = str(config["architectures"][0])
    except (FileNotFoundError, ValueError, KeyError, IndexError, TypeError):
        return "files only: no config.json with an architecture", {}
    if "auto_map" in config:
        return "from_pretrained(<folder>/model, trust_remote_code=True)", {}
    task, component = next((p for end, p in PIPELINES.items() if architecture.endswith(end)), ("", ""))
    if not task:
        return "from_pretrained(<folder>/model)", {}
    options: dict[str, Any] = {
        "task": task,
        "instance_type": "".join(word.title() for word in task.split("-")) + "Pipeline",
        "pipeline_model_type": architecture,
        "source_model_name": str(config.get("_name_or_path") or architecture),
        "model_binary": MODEL,
        "components": [],
    }
    auto, marks = COMPONENTS[component]
    if any((folder / mark).exists() for mark in marks):
        return "mlflow.transformers.load_model", {**options, "components": [component], f"{component}_type": auto}
    return "mlflow.transformers.load_model(…, return_type='components')", options


def _signature(task: str) -> ModelSignature:
    """Return the signature of MLflow's pipeline for a task."""
    outputs: list[ColSpec | TensorSpec] = [ColSpec("string")]
    if task.endswith("-classification") and task != "token-classification":
        outputs = [ColSpec("string", name="label"), ColSpec("double", name="score")]
    return ModelSignature(inputs=Schema([ColSpec("string")]), outputs=Schema(outputs))


def example_of(weights: Path, data: Path | None) -> Any:
    """Return a text of the prepared validation data, decoded from its tokens; None if it cannot be decoded."""
    if data is None or not (weights / "tokenizer.json").exists():
        return None
    try:
        import pyarrow as arrow
        from tokenizers import Tokenizer

        file = sorted((data / "validation").glob("*.arrow"))[0]
        with arrow.memory_map(str(file)) as source:
            tokens = arrow.ipc.open_stream(source).read_next_batch().column("input_ids")[0].as_py()
        return (
            str(Tokenizer.from_file(str(weights / "tokenizer.json")).decode(tokens, skip_special_tokens=True)) or None
        )
    except Exception:  # noqa: BLE001  # an example is optional; unusual data must not cost the study its winner
        return None


def _link(weights: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in weights.iterdir():
        if file.is_file() and file.suffix not in WEIGHTS and not (folder / file.name).exists():
            link_or_copy(file, folder / file.name)


def _requirements(folder: Path) -> None:
    lines = []
    for library in LIBRARIES:
        try:
            lines.append(f"{library}=={version(library).partition('+')[0]}")
        except PackageNotFoundError:
            continue
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n")
    (folder / "python_env.yaml").write_text(
        f"python: {platform.python_version()}\nbuild_dependencies:\n- pip\ndependencies:\n- -r requirements.txt\n"
    )
