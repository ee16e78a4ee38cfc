"""PR: phones of LibriSpeech by CTC (s3prl/downstream/ctc with the corpus `libriphone`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

from speechft.data.lexicon import read_lexicon
from speechft.files import write_text
from speechft.superb.items import SPLITS
from speechft.superb.readers import libriphone
from speechft.superb.tasks.ctc import CTCTask
from speechft.superb.tasks.text import LIBRISPEECH, missing_splits, split_names


class PR(CTCTask):
    """Two affine layers on every frame."""

    name = "pr"
    metric = "per"
    higher_better = False
    corpus = "librispeech"
    needs: ClassVar[Mapping[str, str]] = {
        "librispeech": LIBRISPEECH,
        "lexicon": (
            "word to phones: librispeech-lexicon-200k-g2p.txt and -allothers-g2p.txt in github.com/s3prl/s3prl, "
            "s3prl/downstream/ctc/lexicon"
        ),
    }
    extra_keys = ("bucketing",)

    def missing_inside(self, data: Mapping[str, Any], there: Collection[str]) -> list[str]:
        problems = missing_splits(data, self.root(data, "train")) if "librispeech" in there else []
        return problems + [f"data.phones={p} does not exist" for p in self.paths(data, "phones") if not p.is_file()]

    def expert_config(self, settings: Mapping[str, Any], data: Mapping[str, Any], work: Path) -> dict[str, Any]:
        """The vocabulary file that s3prl wants is written to `work`: the user's, or what `vocabulary` says."""
        lexicon = [str(path) for path in self.paths(data, "lexicon")]
        given = self.paths(data, "phones")
        phones = libriphone.read_phones(given[0]) if given else libriphone.vocabulary(read_lexicon(lexicon))
        vocabulary = write_text(work / "phones.txt", "\n".join(phones) + "\n")
        return {
            "corpus": {
                "name": "libriphone",
                "path": str(self.root(data, "train")),
                "lexicon": lexicon,
                **{split: split_names(data, split) for split in SPLITS},
                "bucketing": bool(settings["bucketing"]),
                "batch_size": int(settings["batch_size"]),
                "num_workers": int(settings["num_workers"]),
            },
            "text": {"mode": "word", "vocab_file": str(vocabulary)},
            "model": {"project_dim": int(settings["project_dim"]), "zero_infinity": True, "select": "FrameLevel"},
            "save_best_on": ["dev"],
            "metric_higher_better": False,
            "metric": ["per"],
        }

    def utterances(self, records: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Edit distance over phones, as s3prl/downstream/ctc/metric.py counts it."""
        import editdistance

        lines = []
        for name, guess, truth in zip(records["filename"], records["hypothesis"], records["groundtruth"], strict=True):
            reference = truth.split(" ")
            errors = editdistance.eval(guess.split(" "), reference)
            lines.append({"file": str(name), "errors": int(errors), "length": len(reference)})
        return lines
