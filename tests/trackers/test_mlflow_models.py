"""The best checkpoint as an MLflow model: stored once, loadable by MLflow and by transformers, gone when dropped."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import written_trials as trials
from sweepkit.backends.checkpoints import Checkpoints
from sweepkit.study.study import StudyData
from sweepkit.trackers.mlflow.address import tracking_uri
from sweepkit.trackers.mlflow.store import Store
from sweepkit.trackers.mlflow.tracker import MLflowTracker
from sweepkit.trial.trial import Ending, Trial

pytestmark = pytest.mark.real


QUIET = [
    # transformers' and torch's own words to each other while a model loads.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
TEXT = "free prize call now"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny text classifier with its tokenizer, as the Trainer leaves ``best/``."""
    return trials.tiny_classifier(tmp_path_factory.mktemp("classifier"))


def kept(study: StudyData, numbers: list[int], model: Path) -> MLflowTracker:
    """Return a tracker that delivered complete trials and keeps the best checkpoint of each."""
    rows = []
    for number in numbers:
        rows.append(trials.whole(study, number))
        (trials.keeps_best(study, number, model) / "training_args.bin").write_bytes(b"a pickle")
    tracker = MLflowTracker(study, lambda: rows)
    tracker.open()
    tracker.sync()
    for number in numbers:
        tracker.keep(number)
    return tracker


def models(study: StudyData) -> list[Any]:
    """Return the logged models that MLflow has, oldest first."""
    client = Store(tracking_uri(study), study.place).client
    return list(client.search_logged_models(["1"], order_by=[{"field_name": "creation_timestamp", "ascending": True}]))


def weights(home: Path) -> list[Path]:
    """Return every file of weights under a folder, each once, whatever links to it."""
    files = [Path(folder) / name for folder, _, names in os.walk(home) for name in names]
    return list({file.stat().st_ino: file for file in files if file.suffix == ".safetensors"}.values())


def disk(file: Path) -> tuple[int, int]:
    return file.stat().st_dev, file.stat().st_ino


def scores(folder: str | Path) -> list[float]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)(TEXT, return_tensors="pt")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return [float(score) for score in model(**tokens).logits.detach()[0]]


class TestAKeptCheckpoint:
    """One classifier, kept, crowned and registered; then looked at from all sides."""

    pytestmark = QUIET

    @pytest.fixture(scope="class")
    def home(self, tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
        folder = tmp_path_factory.mktemp("kept")
        (folder / "pyproject.toml").write_text("")
        (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
        return folder

    @pytest.fixture(scope="class")
    def study(self, home: Path, classifier: Path) -> StudyData:
        study = trials.toy_study(home, tracking={"register": "toy-model"})
        tracker = kept(study, [0, 1], classifier)
        for _ in range(2):
            tracker.close({"best": 1, "value": 0.6, "baseline": 0.5, "says": "Trial 1 is best."})
        return study

    @pytest.fixture
    def mlflow(self, study: StudyData) -> Any:
        import mlflow

        mlflow.set_tracking_uri(tracking_uri(study))
        mlflow.set_registry_uri(tracking_uri(study))
        yield mlflow
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        os.environ.pop("MLFLOW_REGISTRY_URI", None)

    def test_it_is_stored_once(self, study: StudyData, home: Path) -> None:
        assert len(weights(home)) == 2
        best, link = (study.place.trial(1) / name for name in ("best", "mlflow"))
        assert best.is_dir() and not best.is_symlink()
        assert link.is_symlink() and not link.readlink().is_absolute()
        assert home / "mlartifacts" in link.resolve().parents
        assert disk(link / "model.safetensors") == disk(best / "model.safetensors")

    def test_runs_alone_has_it_wherever_it_is_copied(self, study: StudyData, classifier: Path, tmp_path: Path) -> None:
        shutil.copytree(study.place.runs, tmp_path / "runs", symlinks=True)
        assert scores(tmp_path / "runs/toy/trials/0001/best") == scores(classifier)

    def test_what_mlflow_gives_out_holds_no_links(self, study: StudyData, mlflow: Any) -> None:
        model = models(study)[1]
        (found,) = Path(mlflow.artifacts.download_artifacts(f"models:/{model.model_id}")).glob("model")
        assert not any(path.is_symlink() for path in [found, *found.rglob("*")]), "MLflow refuses to follow a link"
        names = {file.name for file in found.iterdir()}
        assert names == {file.name for file in (study.place.trial(1) / "best").iterdir()}

    def test_mlflow_loads_it_by_its_id_and_by_its_alias(self, study: StudyData, mlflow: Any) -> None:
        import mlflow.transformers as flavor

        model = models(study)[1]
        direct = flavor.load_model(f"models:/{model.model_id}")(TEXT)
        assert direct == flavor.load_model("models:/toy-model@champion")(TEXT)
        assert direct[0]["label"] in ("ham", "spam")

    def test_the_champion_predicts_with_its_signature_from_its_example(self, study: StudyData, mlflow: Any) -> None:
        champion = mlflow.pyfunc.load_model("models:/toy-model@champion")
        assert list(champion.predict([TEXT]).columns) == ["label", "score"]
        assert champion.metadata.signature.outputs.input_names() == ["label", "score"]

    def test_it_is_ready_and_carries_the_metrics_of_its_evaluation(self, study: StudyData) -> None:
        first, second = models(study)
        assert [str(model.status) for model in (first, second)] == ["READY", "READY"]
        assert {(metric.key, metric.step) for metric in second.metrics} == {("eval_f1", 20), ("eval_loss", 20)}
        assert (second.params["learning_rate"], second.tags["sweepkit.trial"]) == ("6e-05", "1")
        assert second.tags["sweepkit.loads_with"] == "mlflow.transformers.load_model"
        run = Store(tracking_uri(study), study.place).client.get_run(second.source_run_id)
        assert [(output.model_id, output.step) for output in run.outputs.model_outputs] == [(second.model_id, 20)]

    def test_it_is_registered_once(self, study: StudyData) -> None:
        client = Store(tracking_uri(study), study.place).client
        (version,) = client.search_model_versions("name = 'toy-model'")
        model = models(study)[1]
        assert version.source == model.artifact_location
        assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "toy-model", "version": version.version}]
        assert client.get_model_version_by_alias("toy-model", "champion").version == version.version
        assert version.description == "toy, trial 1. Trial 1 is best."
        assert client.get_registered_model("toy-model").description == "Which learning rate?"

    def test_no_pickle_of_training_arguments_is_in_it(self, home: Path, study: StudyData) -> None:
        assert weights(home) and models(study)
        assert list(home.rglob("training_args.bin")) == []


def test_copies_share_nothing_and_go_together(home: Path, classifier: Path) -> None:
    study = trials.toy_study(home, tracking={"copy_models": True})
    tracker = kept(study, [0], classifier)
    assert len(weights(home)) == 2
    tracker.drop(0)
    assert weights(home) == []


def test_a_dropped_checkpoint_leaves_the_disk_before_mlflow_hears_of_it(home: Path, classifier: Path) -> None:
    study = trials.toy_study(home, tracking={"register": "toy-model"})
    tracker = kept(study, [0, 1], classifier)
    tracker.close({"best": 0})
    for number in (0, 1):
        Checkpoints(study.place, limit_bytes=None, pinned=tracker.registered()).end(number, keeps_best=False)
    (left,) = weights(home)
    assert "mlartifacts" in left.parts, "what is registered stays"
    assert list(study.place.trials.glob("*/mlflow")) == []


def test_dropping_takes_the_model_its_files_and_best(home: Path, classifier: Path) -> None:
    study = trials.toy_study(home)
    tracker = kept(study, [0, 1], classifier)
    tracker.drop(0)
    (left,) = models(study)
    assert left.tags["sweepkit.trial"] == "1"
    assert len(weights(home)) == 1
    assert not os.path.lexists(study.place.trial(0) / "best")


def test_a_registered_model_outlives_its_trials_place_among_the_best(home: Path, classifier: Path) -> None:
    study = trials.toy_study(home, tracking={"register": "toy-model"})
    tracker = kept(study, [0], classifier)
    assert tracker.registered() == frozenset()
    tracker.close({"best": 0})
    assert tracker.registered() == {0}
    tracker.drop(0)
    tracker.close({"best": None})
    (model,) = models(study)
    assert len(weights(home)) == 1
    assert not os.path.lexists(study.place.trial(0) / "best")


def test_what_a_killed_driver_left_half_done_is_put_right_at_the_end(home: Path, classifier: Path) -> None:
    study = trials.toy_study(home)
    kept(study, [0, 1, 2, 3], classifier)
    state = json.loads(study.place.mlflow_json.read_text())
    state["trials"]["0"]["model"] = "making"
    made = (study.place.trial(0) / "mlflow").resolve()
    made.rename(made.with_name("model.part"))  # killed while the model's files were made
    (study.place.trial(0) / "mlflow").unlink()
    shutil.rmtree(study.place.trial(1) / "best")  # dropped by the driver, not yet by the tracker
    state["trials"]["2"]["model"] = "leaving"  # killed while dropping it
    shutil.rmtree(study.place.trial(2) / "best")
    study.place.mlflow_json.write_text(json.dumps(state))
    rows = [trials.row(number, Ending.complete) for number in range(5)] + [trials.row(5, Ending.pruned)]
    for number in (4, 5):
        trials.whole(study, number)
        trials.keeps_best(study, number, classifier)  # 4 was never asked for, 5 has no claim
    again = MLflowTracker(study, lambda: rows)
    again.open()
    again.sync()
    again.close({})
    assert sorted(model.tags["sweepkit.trial"] for model in models(study)) == ["0", "3", "4"]
    linked = [number for number in range(6) if (study.place.trial(number) / "mlflow" / "config.json").exists()]
    assert linked == [0, 3, 4]
    assert not list(home.rglob("model.part"))
    assert len(weights(home)) == 4


def test_a_lost_memory_makes_no_second_model(home: Path, classifier: Path) -> None:
    study = trials.toy_study(home)
    kept(study, [0], classifier)
    study.place.mlflow_json.unlink()
    rows = [trials.row(0, Ending.complete)]
    again = MLflowTracker(study, lambda: rows)
    again.open()
    again.sync()
    again.keep(0)
    assert len(models(study)) == 1
    assert len(weights(home)) == 1


def test_a_registered_model_stays_although_what_was_known_of_it_is_lost(home: Path, classifier: Path) -> None:
    study = trials.toy_study(home, tracking={"register": "toy-model"})
    kept(study, [0], classifier).close({"best": 0})
    study.place.mlflow_json.write_bytes(b"\0" * 99)
    again = MLflowTracker(study, lambda: [trials.row(0, Ending.complete)])
    assert again.registered() == {0}, "it may be registered"
    again.open()
    again.sync()
    again.keep(0)
    assert again.registered() == {0}
    again.drop(0)
    assert len(models(study)) == len(weights(home)) == 1


def test_a_link_in_the_place_of_a_checkpoint_or_trial_is_no_model_and_what_it_leads_to_stays(
    home: Path, classifier: Path, tmp_path: Path
) -> None:
    study, elsewhere = trials.toy_study(home), tmp_path / "elsewhere"
    rows = [trials.whole(study, number) for number in (0, 1)]
    (elsewhere / "best").mkdir(parents=True)
    for name in ("precious.safetensors", "training_args.bin"):
        (elsewhere / "best" / name).write_bytes(b"mine")
    (study.place.trial(0) / "best").symlink_to(elsewhere / "best")
    (elsewhere / "events.jsonl").write_bytes((study.place.trial(1) / "events.jsonl").read_bytes())
    shutil.rmtree(study.place.trial(1))
    study.place.trial(1).symlink_to(elsewhere)
    tracker = MLflowTracker(study, lambda: rows)
    tracker.open()
    tracker.sync()
    for number in (0, 1):
        tracker.keep(number)
        tracker.drop(number)
    assert models(study) == []
    assert sorted(path.name for path in (elsewhere / "best").iterdir()) == ["precious.safetensors", "training_args.bin"]


@pytest.mark.parametrize(
    ("file", "content", "loads_with"),
    [
        ("adapter_config.json", {"peft_type": "LORA"}, "peft: PeftModel.from_pretrained(base, <folder>/model)"),
        ("readme.txt", {}, "files only: no config.json with an architecture"),
        ("config.json", {"architectures": ["BertModel"]}, "from_pretrained(<folder>/model)"),
        (
            "config.json",
            {"architectures": ["MyNet"], "auto_map": {"AutoModel": "net.MyNet"}},
            "from_pretrained(<folder>/model, trust_remote_code=True)",
        ),
        (
            "config.json",
            {"architectures": ["BertForSequenceClassification"]},
            "mlflow.transformers.load_model(…, return_type='components')",
        ),
    ],
)
def test_a_folder_that_is_no_pipeline_says_how_it_loads(
    home: Path, tmp_path: Path, file: str, content: dict[str, Any], loads_with: str
) -> None:
    study = trials.toy_study(home)
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / file).write_text(json.dumps(content))
    kept(study, [0], folder)
    (model,) = models(study)
    assert model.tags["sweepkit.loads_with"] == loads_with
    assert (study.place.trial(0) / "best" / file).exists()


def test_nothing_is_kept_where_there_is_no_checkpoint_or_no_run(home: Path, classifier: Path) -> None:
    study = trials.toy_study(home)
    rows: list[Trial] = [trials.whole(study, 0)]
    tracker = MLflowTracker(study, lambda: rows)
    tracker.open()
    tracker.keep(0)
    tracker.sync()
    tracker.keep(0)
    tracker.keep(7)
    tracker.drop(7)
    assert models(study) == []
