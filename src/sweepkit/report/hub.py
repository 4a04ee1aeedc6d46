"""Puts a trial's model on the Hugging Face Hub, with its card: ``sweep best STUDY --push NAME``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from sweepkit.report.export import publishable
from sweepkit.study.errors import InputError, StudyFailed
from sweepkit.study.files import first_line
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Trial


def push(study: StudyData, rows: Sequence[Trial], row: Trial, name: str, *, private: bool = False) -> str:
    """Upload a trial's best model to the repository ``name``, made if necessary; return its address.

    Raises InputError without a token, offline, or for a name that the Hub does not take; StudyFailed where it refuses.
    """
    from huggingface_hub import HfApi, constants, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if constants.HF_HUB_OFFLINE:
        raise InputError("--push: HF_HUB_OFFLINE forbids it; unset it to reach the Hub")
    if get_token() is None:
        raise InputError("--push: there is no Hub token; log in with `hf auth login`, or set HF_TOKEN")
    api = HfApi()
    # Of requests, httpx or httpx2, by the version of huggingface_hub.
    unreachable = cast("type[Exception]", HfHubHTTPError.__mro__[1])
    try:
        made = api.create_repo(name, private=private or None, exist_ok=True)
        with TemporaryDirectory(prefix="sweepkit-") as temporary:
            folder = Path(temporary) / "model"
            publishable(study, rows, row, folder, name=made.repo_id)
            said = f"{study.name}, trial {row.number}"
            api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message=said)
    except HFValidationError as error:
        raise InputError(f"--push: {first_line(error)}") from error
    except HfHubHTTPError as error:
        raise StudyFailed(f"the Hub at {api.endpoint} refused {name}: {first_line(error)}") from error
    except (unreachable, ConnectionError) as error:
        raise StudyFailed(f"the Hub at {api.endpoint} cannot be reached: {first_line(error)}") from error
    return str(made)
