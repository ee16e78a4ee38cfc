"""SF: words and slots of Audio SNIPS by CTC on characters (s3prl/downstream/ctc with the corpus `snips`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

from speechft.console import say
from speechft.data.slots import characters
from speechft.files import write_text
from speechft.superb.readers import snips
from speechft.superb.tasks.ctc import CTCTask
from speechft.superb.tasks.text import recurrent

_FOLDERS = {"train": "train", "dev": "valid", "test": "test"}
_METRICS = (
    "slot_type_f1", "slot_value_cer", "slot_value_wer", "slot_edit_f1_full", "slot_edit_f1_part", "wer", "cer",
)  # fmt: skip


class SF(CTCTask):
    """An affine layer and bidirectional LSTMs; slots are tokens around the characters of their values."""

    name = "sf"
    metric = "slot_type_f1"
    higher_better = True
    percent = ("slot_edit_f1_full", "slot_edit_f1_part")
    corpus = "snips"
    needs: ClassVar[Mapping[str, str]] = {
        "snips": (
            "Audio SNIPS as SUPERB prepares it: the link is under SF in github.com/s3prl/s3prl, "
            "s3prl/downstream/docs/superb.md"
        ),
    }
    extra_keys = ("bucketing", "rnn_dims", "dropout", "specaug", "train_speakers", "dev_speakers", "test_speakers")

    def check(self, data: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Audio that lacks behind the transcripts is told, not refused: the lines may be more than the corpus has."""
        super().check(data, settings)
        root = self.root(data, "train")
        names = snips.read_transcripts(root / snips.TRANSCRIPTS).keys()
        for split, folder in _FOLDERS.items():
            gone = snips.absent(root, folder, settings[f"{split}_speakers"], names)
            if gone:
                say(f"sf: {root / folder} has no audio of {len(gone)} of {snips.TRANSCRIPTS}'s utterances "
                    f"({', '.join(gone[:3])}{', ...' if len(gone) > 3 else ''}); they are left out")  # fmt: skip

    def missing_inside(self, data: Mapping[str, Any], there: Collection[str]) -> list[str]:
        del there
        root = self.root(data, "train")
        names = (snips.TRANSCRIPTS, "slots.txt", *_FOLDERS.values())
        absent = [name for name in names if not (root / name).exists()]
        if absent:
            return [f"{root} has no {', '.join(absent)} ({self.needs['snips']})"]
        empty = [name for name in _FOLDERS.values() if not any((root / name).rglob("*.wav"))]
        return [f"{root} has no *.wav under {', '.join(empty)} ({self.needs['snips']})"] if empty else []

    def expert_config(self, settings: Mapping[str, Any], data: Mapping[str, Any], work: Path) -> dict[str, Any]:
        """The file of characters that s3prl wants is written to `work`."""
        root = self.root(data, "train")
        vocabulary = write_text(work / "characters.txt", "\n".join(characters()) + "\n")
        return {
            "corpus": {
                "name": "snips",
                "path": str(root),
                **{split: [folder] for split, folder in _FOLDERS.items()},
                **{f"{folder}_speakers": list(settings[f"{split}_speakers"]) for split, folder in _FOLDERS.items()},
                "bucketing": bool(settings["bucketing"]),
                "batch_size": int(settings["batch_size"]),
                "num_workers": int(settings["num_workers"]),
            },
            "text": {"mode": "character-slot", "vocab_file": str(vocabulary), "slots_file": str(root / "slots.txt")},
            "model": {
                "project_dim": int(settings["project_dim"]),
                "zero_infinity": True,
                "select": "RNNs",
                "RNNs": recurrent(settings),
            },
            "save_best_on": ["dev"],
            "metric_higher_better": True,
            "metric": list(_METRICS),
        }

    def utterances(self, records: Mapping[str, Any]) -> list[dict[str, Any]]:
        """`slot_type_f1` is the utterance's, whose mean is the corpus's (s3prl/downstream/ctc/metric.py).

        `slot_value_cer_errors` and `_length` (characters of the true slot values) sum to its slot value CER.
        """
        from s3prl.downstream.ctc.metric import parse, slot_type_f1, slot_value_cer

        lines = []
        for name, guess, truth in zip(records["filename"], records["hypothesis"], records["groundtruth"], strict=True):
            _, _, slots, _ = parse(guess, truth)
            length = sum(len(slot.split(":")[0]) for slot in slots.split(";")) if slots else 0
            errors = round(slot_value_cer([guess], [truth]) * length) if length else 0
            score = slot_type_f1([guess], [truth])
            lines.append(
                {"file": str(name), "slot_type_f1": score, "slot_value_cer_errors": errors,
                 "slot_value_cer_length": length}
            )  # fmt: skip
        return lines
