"""The how-to pages: their studies load, their Python runs, their links lead somewhere, and the messages they explain exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import reference
import toys
from sweepkit.check.study_file import load_study

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "studies" / "how-to"
PAGES = sorted(FOLDER.glob("*.md"))
FOLDERS = ("notebooks", "src", "studies", "sweeps", "tests")
LINKED = sorted([*ROOT.glob("*.md"), *(p for f in FOLDERS for e in ("*.md", "*.ipynb") for p in (ROOT / f).rglob(e))])
LINK = re.compile(r"""\]\(<?([^)\s>]+)|^\[[^\]]+\]:\s*(\S+)|(?:href|src)=["']([^"']+)""", re.M)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in BLOCK.findall(page.read_text()) if kind == language]


@pytest.fixture
def home(project: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project with the files that the pages speak of."""
    rows = [(text, int(label == "spam")) for text, label in toys.messages(40)]
    (project / "reviews.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    for split in ("train", "dev"):
        lines = [f"{text}\t{text}\t{label}\n" for text, label in rows]
        (project / f"{split}.tsv").write_text("premise\thypothesis\tgold\n" + "".join(lines))
    (project / "bert-base-uncased").symlink_to(tiny_bert)
    (project / "machine.yaml").write_text("distributed_type: FSDP\nnum_processes: 2\nfsdp_config: {fsdp_version: 2}\n")
    monkeypatch.chdir(project)
    return project


def loaded(page: Path) -> Any:
    """Return the page as a parameter; where it shows a class, a process answers what that takes."""
    return pytest.param(page, id=page.stem, marks=[pytest.mark.real] if blocks(page, "python") else [])


@pytest.mark.parametrize("page", [loaded(page) for page in PAGES if blocks(page, "yaml")])
def test_the_studies_of_a_page_load_and_its_python_runs(page: Path, home: Path) -> None:
    """A block without a name changes keys of the page's first study."""
    yaml = YAML(typ="safe")
    code = "\n\n".join(blocks(page, "python"))
    (home / "task.py").write_text(code)
    whole: dict[str, Any] = {}
    for text in blocks(page, "yaml"):
        part = yaml.load(text) or {}  # a comment alone
        whole = part if "name" in part else {**whole, **part}
        with (home / "study.yaml").open("w") as file:
            yaml.dump(whole, file)
        assert load_study(home / "study.yaml").study.name == whole["name"]
    exec(code, {"__name__": "how_to"})


@pytest.mark.real
def test_the_task_of_a_page_brings_data_and_a_model_that_fit(home: Path) -> None:
    names: dict[str, Any] = {"__name__": "how_to"}
    exec("\n".join(blocks(FOLDER / "task.md", "python")), names)
    task = names["Pairs"](max_length=5)
    rows = task.data()["train"].select_columns(["input_ids", "attention_mask"])[:4]
    batch = task.processing_class().pad(rows, return_tensors="pt")
    assert task.model_init()(**batch).logits.shape == (4, 2)


def prose(page: Path) -> str:
    """Return a page's text, or that of a notebook's cells, without its code."""
    text = page.read_text()
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return re.sub(r"`[^`\n]*`", lambda code: code.group().replace("](", "] ("), BLOCK.sub("", text))


def anchors(page: Path) -> set[str]:
    """Return what the page's headings are called in a link."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in ("".join(groups) for groups in LINK.findall(prose(page))):
        if "://" in target:
            assert re.fullmatch(r"https://[\w.-]+\.[a-z]+(/\S*)?", target), target
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


@pytest.mark.parametrize("path", reference.pages(), ids=lambda path: path.stem)
def test_a_reference_page_says_what_the_code_says(path: Path) -> None:
    assert path.read_text() == reference.pages()[path], "make reference writes it again"


def test_every_message_that_is_explained_exists() -> None:
    source = "\n".join(file.read_text() for file in (ROOT / "src").rglob("*.py"))
    rows = re.findall(r"^\| `([^`]+)` \|", (FOLDER / "troubleshooting.md").read_text(), re.M)
    assert len(rows) >= 12
    assert [message for message in rows if message not in source] == []


def test_the_index_answers_a_readers_questions() -> None:
    index = (FOLDER / "README.md").read_text()
    assert index.count("?") >= 25
    linked = set(re.findall(r"\]\((\w+)\.md", index))
    assert linked >= {page.stem for page in PAGES if page.stem != "README"}
