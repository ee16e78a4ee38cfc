"""The model card that is handed over: what the folder's own card says, and SUPERB results as the Hub reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechft.errors import SpeechFTError
from speechft.report.collect import Score
from speechft.report.recipes import off_official

_SUPERB: dict[str, tuple[str, str]] = {
    "pr": ("automatic-speech-recognition", "Phoneme Recognition"),
    "asr": ("automatic-speech-recognition", "Automatic Speech Recognition"),
    "ks": ("audio-classification", "Keyword Spotting"),
    "qbe": ("audio-classification", "Query by Example Spoken Term Detection"),
    "sid": ("audio-classification", "Speaker Identification"),
    "asv": ("audio-classification", "Automatic Speaker Verification"),
    "sd": ("audio-classification", "Speaker Diarization"),
    "ic": ("audio-classification", "Intent Classification"),
    "sf": ("automatic-speech-recognition", "Slot Filling"),
    "er": ("audio-classification", "Emotion Recognition"),
}
"""Task -> the Hub's kind of task that is nearest, and SUPERB's own name (2105.01051, section 2)."""

_METRICS = {"acc": "accuracy", "slot_type_f1": "f1", "slot_value_cer": "cer"}
"""Our names of metrics where the Hub's differ."""


def metadata(
    existing: Mapping[str, Any], name: str, scores: Sequence[Score], base_model: str | None, relation: str,
    license: str | None, library: str = "transformers",
) -> Any:  # fmt: skip
    """The card's YAML header as `huggingface_hub.ModelCardData`, with `model-index` for the scores.

    Args:
        existing: the header that the folder's card has.
        name: of the model.
        scores: of this model, in per cent.
        base_model: the pre-trained model's name on the Hub; None where it is not there.
        relation: to it: `merge` or `finetune`.
        license: its identifier on the Hub.
        library: what loads it, where the header does not say.
    """
    from huggingface_hub import ModelCardData

    values: dict[str, Any] = {"library_name": library, **existing, "pipeline_tag": "feature-extraction"}
    values["tags"] = list(dict.fromkeys([*(existing.get("tags") or ()), "speech", "speechft"]))
    if base_model:
        values |= {"base_model": base_model, "base_model_relation": relation}
    if license:
        values["license"] = license
    if scores:
        values |= {"model_name": name, "eval_results": [_result(score) for score in scores]}
        values["metrics"] = sorted({_METRICS.get(score.metric, score.metric) for score in scores})
    return ModelCardData(**values)


def _result(score: Score) -> Any:
    from huggingface_hub import EvalResult

    kind, title = _SUPERB.get(score.task, ("audio-classification", score.task.upper()))
    record, corpus = score.record, score.record.get("corpus")
    made = {key: record.get(key) for key in ("lr", "steps", "seed", "engine")}
    return EvalResult(
        task_type=kind,
        task_name=f"SUPERB {title}",
        dataset_type="speechft-synthetic" if corpus else "superb",
        dataset_name=f"{corpus} corpus" if corpus else f"SUPERB {score.task.upper()}",
        dataset_config=score.task,
        dataset_split="test",
        dataset_args={"utterances": record.get("test_utterances")},
        metric_type=_METRICS.get(score.metric, score.metric),
        metric_name=f"{score.metric} (%)",
        metric_value=round(score.value, 4),
        metric_args={**made, "official_recipe": not off_official(record)},
    )


def results(scores: Sequence[Score], titles: Mapping[str, str], base: Mapping[str, Score]) -> str:
    """The same results for people, beside the pre-trained model's.

    Args:
        scores: of this model.
        titles: a score's column -> its title.
        base: column -> the pre-trained model's score, where there is one by the same recipe.
    """
    if not scores:
        return ""
    lines = [
        "## SUPERB", "", "Frozen, scored with s3prl's own experts (`speechft eval superb`).", "",
        "| task | this model | pre-trained | learning rate | steps | recipe | data |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for score in scores:
        record, before = score.record, base.get(column_key(score))
        shown = f"{before.value:.2f}" if before else ""
        departs = off_official(record)
        rate = record.get("lr")
        cells = [
            titles[column_key(score)], f"{score.value:.2f}", shown, f"{rate:g}" if isinstance(rate, float) else "",
            str(record.get("steps")), "; ".join(departs) if departs else "official", record.get("corpus") or "",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def column_key(score: Score) -> str:
    """`pr.per`, as the report's columns are named."""
    return f"{score.task}.{score.metric}"


def card(folder: Path) -> tuple[dict[str, Any], str]:
    """Header and text of the folder's own `README.md`; empty where there is none.

    Raises:
        SpeechFTError: the header is no YAML.
    """
    path = folder / "README.md"
    if not path.is_file():
        return {}, f"\n# {folder.name}\n"
    from huggingface_hub import ModelCard

    try:
        found = ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True)
    except Exception as error:  # YAML's own errors, and values that are no text
        raise SpeechFTError(
            f"the header of {path} cannot be read ({str(error).splitlines()[0]})", "mend it, or remove the file"
        ) from error
    header = found.data.to_dict()
    header.pop("model-index", None)  # made anew
    return header, found.text
