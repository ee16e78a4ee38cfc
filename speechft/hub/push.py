"""`speechft push`: a model's folder to a repository of the Hub, with its card and its scores."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from speechft.checkpoints.loading import library
from speechft.checkpoints.stream import FolderReader
from speechft.checkpoints.weight_files import WEIGHTS
from speechft.console import say
from speechft.errors import SpeechFTError, UsageError
from speechft.files import read_json, whole_folder
from speechft.hub import card
from speechft.hub.places import absolute, shown, without_places
from speechft.merge.norms import square_sum
from speechft.merge.record import read_record
from speechft.report.collect import Score, read_metrics
from speechft.report.columns import place, title
from speechft.report.recipes import differences, recipe
from speechft.runs import Run, is_run

_PIECE = 1 << 20
"""Elements that are looked at at once."""
_CLIENTS = ("httpx", "httpx2", "httpcore", "requests", "urllib3")
"""What huggingface_hub speaks HTTP with, by version; their errors have no common class."""


@dataclass(frozen=True)
class Parcel:
    """What a repository will hold.

    Attributes:
        files: name -> the file's place, or its text.
        scores: SUPERB results that the card tells.
    """

    files: dict[str, Path | str]
    scores: list[Score]

    def write(self, folder: Path) -> Path:
        """The very files, in a new folder.

        Raises:
            UsageError: the folder exists.
        """
        if folder.exists():
            raise UsageError(f"{folder} exists already", "choose another name, or remove it first")
        with whole_folder(folder) as temporary:
            for name, content in self.files.items():
                if isinstance(content, str):
                    (temporary / name).write_text(content, encoding="utf-8")
                else:
                    shutil.copyfile(content, temporary / name)
        return folder


def model_folder(path: Path) -> Path:
    """A model's folder, or a run's only merged model.

    Raises:
        UsageError: neither.
    """
    path = path.expanduser().resolve()
    if is_run(path):
        merged = Run(path).merged_models()
        if len(merged) != 1:
            names = ", ".join(f"merged/{one.name}" for one in merged) or "none"
            raise UsageError(f"{path} has {len(merged)} merged models ({names})", "name the folder of one")
        return merged[0]
    if not (path / "config.json").is_file() or not (path / WEIGHTS).is_file():
        raise UsageError(f"{path} is no model (config.json and {WEIGHTS})", "name what merge or train wrote")
    return path


def check_name(repo: str) -> None:
    """Whether a repository may be called so: `OWNER/NAME` or `NAME`.

    Raises:
        UsageError: it may not.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UsageError(f"{repo} is no name of a repository", "such as OWNER/NAME") from error


def parcel(folder: Path, repo: str, superb: Sequence[Path] = (), license: str | None = None) -> Parcel:
    """Everything that will be sent, made without the network.

    Absolute paths of this machine in card and `merge.json` are cut to their last two names, and those of statistics to
    the last one; hashes say what they were.

    Args:
        folder: a Hugging Face folder.
        repo: `OWNER/NAME` or `NAME`.
        superb: folders of results (what `eval superb --out` wrote), besides the `superb/` of the folder's run.
        license: identifier for the card.

    Raises:
        UsageError: an impossible name.
        SpeechFTError: damaged weights or results.
    """
    check_name(repo)
    reader = FolderReader(folder)
    try:
        sha256 = reader.sha256()
        _check_finite(reader)
    finally:
        reader.close()
    record = read_record(folder)
    run = next((one for one in (folder.parent, folder.parent.parent) if is_run(one)), None)
    parent = _parent(record, run)
    places = [*superb, *([run / "superb"] if run else [])]
    scores = _scores(places, sha256)
    base = {}
    for theirs in _scores(places, parent.get("sha256")):
        ours = next((one for one in scores if card.column_key(one) == card.column_key(theirs)), None)
        if ours is not None and not differences(recipe(ours.record), recipe(theirs.record)):
            base[card.column_key(theirs)] = theirs
    header, text = card.card(folder)
    name = repo.rpartition("/")[2]
    relation = "merge" if record else "finetune"
    data = card.metadata(
        header, name, scores, _hub_name(parent), relation, license, library(reader.config.get("model_type"))
    )
    titles = {card.column_key(one): title(card.column_key(one), one.higher_better) for one in scores}
    parts = [
        without_places(text, absolute(record)).strip(),
        _choice(folder, sha256),
        card.results(scores, titles, base),
    ]
    readme = f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(part.strip() for part in parts if part) + "\n"

    files: dict[str, Path | str] = {
        path.name: path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")
    }
    files["README.md"] = readme
    if record:
        files["merge.json"] = json.dumps(shown(record), indent=2, ensure_ascii=False) + "\n"
    return Parcel(files, scores)


def push(contents: Parcel, repo: str, public: bool = False, update: bool = False, message: str | None = None) -> str:
    """Send a parcel; returns the repository's address.

    Args:
        contents: what `parcel` made.
        repo: `OWNER/NAME`, or `NAME` for one's own.
        public: a new repository is private otherwise.
        update: commit to a repository that has files already; its visibility stays.
        message: of the commit.

    Raises:
        UsageError: an impossible name, no token, or a repository that exists.
        SpeechFTError: the Hub cannot be reached, or refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    check_name(repo)
    if not get_token():
        raise UsageError("there is no token for the Hugging Face Hub", "log in with hf auth login, or set HF_TOKEN")
    api = HfApi(library_name="speechft")
    additions = [
        CommitOperationAdd(name, str(content) if isinstance(content, Path) else content.encode())
        for name, content in contents.files.items()
    ]
    try:
        try:
            repo = api.create_repo(repo, private=not public).repo_id
            say(f"made {repo} ({'public' if public else 'private'})")
        except HfHubHTTPError as error:
            if _status(error) != 409:
                raise
            if "/" not in repo:
                repo = f"{api.whoami()['name']}/{repo}"
            # A push that was interrupted leaves an empty repository, which is no reason to stop.
            if not update and set(api.list_repo_files(repo)) - {".gitattributes"}:
                raise UsageError(
                    f"{repo} exists on the Hub and has files", "choose another name, or add --update to commit to it"
                ) from error
        return str(api.create_commit(repo, additions, commit_message=message or "Upload with speechft").repo_url)
    except OfflineModeIsEnabled as error:
        raise SpeechFTError("the Hub is switched off here (HF_HUB_OFFLINE)", "unset it, or use --dry-run") from error
    except HfHubHTTPError as error:
        raise _refused(repo, error) from error
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in _CLIENTS:
            raise
        raise SpeechFTError(
            f"the Hugging Face Hub cannot be reached ({type(error).__name__})",
            "check the network; --dry-run needs none",
        ) from error


def _check_finite(reader: FolderReader) -> None:
    for name in reader.names():
        info = reader.info(name)
        if not info.dtype.is_floating_point:
            continue
        for start in range(0, info.size, _PIECE):
            piece = reader.read(name, start, min(start + _PIECE, info.size))
            if not math.isfinite(square_sum(piece if piece.dtype == torch.float64 else piece.float())):
                raise SpeechFTError(
                    f"{name} of {reader.folder} is not finite (NaN or infinite)",
                    "its weights are broken: make it again",
                )


def _refused(repo: str, error: Any) -> SpeechFTError:
    status = _status(error)
    if status == 401:
        return SpeechFTError("the Hub does not know the token", "log in anew with hf auth login, or set HF_TOKEN")
    if status == 403:
        return SpeechFTError(f"the token may not write to {repo}", "use a token with write access, or another owner")
    said = getattr(error, "server_message", None) or str(error).strip().splitlines()[0]
    return SpeechFTError(f"the Hub refused {repo} ({status}: {said})", "nothing was changed since; try again later")


def _status(error: Any) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _parent(record: dict[str, Any], run: Path | None) -> dict[str, Any]:
    """The pre-trained upstream's `path` and `sha256`, from the merge or from the run."""
    for one in record.get("parents", ()):
        if one.get("role") == "pretrained":
            return dict(one)
    if run is not None:
        found = read_json(Run(run).pretrained)
        return {"path": found.get("source"), "sha256": found.get("sha256")}
    return {}


def _hub_name(parent: dict[str, Any]) -> str | None:
    path = str(parent.get("path") or "")
    is_local = ":" in path or path.startswith((".", "~", "/")) or Path(path).exists()
    return path if path.count("/") == 1 and not is_local else None


def _scores(places: Sequence[Path], sha256: str | None) -> list[Score]:
    """All metrics of results of these weights, one of each; where there are several, the newest."""
    found: dict[str, tuple[float, Score]] = {}
    for path in _result_files(places):
        try:
            read = read_metrics(path)
        except SpeechFTError as error:
            say(f"left out: {error}")
            continue
        written = path.stat().st_mtime
        for key, score in read.items():
            ours = (score.record.get("upstream") or {}).get("sha256") == sha256
            if ours and (key not in found or found[key][0] < written):
                found[key] = (written, score)
    return [found[key][1] for key in sorted(found, key=place)]


def _result_files(places: Sequence[Path]) -> Iterator[Path]:
    for folder in places:
        for path in sorted([*folder.glob("*.json"), *folder.glob("*/*.json")]):
            hidden = path.parent != folder and path.parent.name.startswith(".")
            if not hidden and path.with_suffix(".utterances.jsonl").is_file():
                yield path


def _choice(folder: Path, sha256: str) -> str:
    """How α was chosen, where `speechft merge --alpha auto` chose it."""
    for path in sorted(folder.parent.glob("choice*.json")):
        choice = read_json(path)
        scored = [one for one in choice["candidates"] if one["alpha"] == choice["chosen"]]
        if scored and scored[0].get("sha256") == sha256:
            alphas = ", ".join(f"{one['alpha']:g}" for one in choice["candidates"])
            by = " and ".join(one["title"] for one in choice["objectives"])
            return f"α was chosen among {alphas}, scored by {by}: {choice['why']} (`{choice['rule']['name']}`)."
    return ""
