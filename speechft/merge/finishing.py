"""What comes beside merged weights: configuration, head, card, record; and the proof that the folder can be used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from speechft.checkpoints.convention import MARK
from speechft.checkpoints.convert import add_beside
from speechft.checkpoints.folder import CODE, HEAD, NATIVE, OWN
from speechft.checkpoints.stream import FolderReader
from speechft.checkpoints.tensor_file import TensorInfo
from speechft.errors import SpeechFTError
from speechft.merge.card import merged_card
from speechft.merge.layout import config_of
from speechft.merge.parents import Parents
from speechft.upstreams.load import load_in_place
from speechft.versions import versions


def finish(folder: Path, record: dict[str, Any], parents: Parents, infos: Mapping[str, TensorInfo], to: str | None,
           check: bool) -> None:  # fmt: skip
    """Complete a folder that holds merged weights.

    Args:
        folder: not under its own name yet.
        record: what `merge.json` says; the family, the s3prl entry and the versions are added.
        parents: where configuration and head come from.
        infos: of the merged tensors.
        to: see `merge`.
        check: whether to reload and run it.

    Raises:
        SpeechFTError: it cannot be loaded, or its features are not finite.
    """
    config = config_of(parents.base, infos)
    # The fine-tuned side says how its input was normalised.
    for name, value in (("config.json", config), ("preprocessor_config.json",
                                                              {**parents.tuned[0].preprocessor, **MARK})):  # fmt: skip
        (folder / name).write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for name in (HEAD, NATIVE):  # the head of the pre-training, where it is known, stays θ0's
        if (parents.base.folder / name).is_file():
            shutil.copyfile(parents.base.folder / name, folder / name)
    if config.get("model_type") == OWN:
        shutil.copyfile(parents.base.folder / CODE, folder / CODE)
    entry = add_beside(folder, to, f"the merged model (alpha {record['alpha']:g})")
    if parents.base.pretraining_head:
        record = {**record, "pretraining_head": config["architectures"][0]}
    about = {"family": config.get("model_type"), "s3prl_hub": entry, "checked": check, "versions": versions()}
    record = {**record, **about}
    (folder / "merge.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(merged_card(record), encoding="utf-8")
    if check:
        run_once(folder, str(record["sha256"]))


def run_once(folder: Path, sha256: str) -> None:
    """Load what was written and run it: a merge that cannot be used is an error now, not in stage 3.

    The file is read again for its hash while the model runs from it, in the memory of a module (`load_in_place`).

    Raises:
        SpeechFTError: other weights come back than were written, or features are not finite.
    """
    with ThreadPoolExecutor(1, "speechft-hash") as beside:
        again = beside.submit(_hash_of, folder)
        upstream = load_in_place(folder, sha256)
        with torch.inference_mode():
            hidden = upstream([torch.sin(torch.arange(16_000) / 20.0)])
        if again.result() != sha256:
            raise SpeechFTError(
                "the merged weights read back differ from those written", "the disk is not to be trusted; check it"
            )
    if not all(bool(torch.isfinite(state).all()) for state in hidden.states):
        raise SpeechFTError("the merged upstream gives features that are not finite", "try an alpha between 0 and 1")


def _hash_of(folder: Path) -> str:
    reader = FolderReader(folder)
    try:
        return reader.sha256()
    finally:
        reader.close()
