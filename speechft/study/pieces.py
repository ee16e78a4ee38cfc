"""One piece of the study: fine-tune, merge, compare features, score; one JSON at its end, the models then deleted."""

from __future__ import annotations

import io
import shutil
import time
from pathlib import Path
from typing import Any

from speechft.files import sha256_json, write_json
from speechft.runs import Run
from speechft.study.plan import EXTRA, PRETRAINED, PROBES, TASK_OF, Piece, Plan
from speechft.study.probes import Tables, arrange, paths
from speechft.superb.settings import resolve_device
from speechft.versions import versions
from speechft.workers import muted


def run_piece(plan: Plan, piece: Piece, tables: Tables, work: Path, results: Path) -> dict[str, Any]:
    """Measure a piece and write `results/PIECE.json`. Interrupted, it goes on: what is measured stays in `work`.

    Args:
        plan: the study.
        piece: one of its pieces.
        tables: the speech.
        work: for corpora, runs and features, the piece's own of which are deleted at the end.
        results: where the JSON goes.

    Returns:
        What the JSON holds.

    Raises:
        SpeechFTError: what training, merging and evaluating raise.
    """
    began = time.monotonic()
    corpora = arrange(
        tables, plan.sizes, piece.seed, work / "corpora" / f"{sha256_json(vars(plan.sizes))[:8]}-{piece.seed}"
    )
    folder, source, device = work / piece.name, plan.upstreams[piece.upstream], resolve_device(plan.device)
    record: dict[str, Any] = {**vars(piece), "models": {}, "device": str(device), "versions": versions()}
    if piece.strategy == PRETRAINED:
        record["models"]["0"] = {"scores": _scores(plan, piece, 0.0, source, corpora, folder)}
    else:
        words, run = _words(plan, piece, tables), folder / "run"
        with muted():
            record["train"] = {"overrides": _portable(words, tables), **_train(words, run)}
            merged = _merge(run, plan.alphas[piece.strategy])
            if piece.strategy in plan.chosen:
                record["auto"] = _choice(run, device)
        moved = _drift(source, merged, corpora, device)
        for alpha, model in merged.items():
            scores = _scores(plan, piece, alpha, str(model), corpora, folder)
            record["models"][f"{alpha:g}"] = {"scores": scores, **moved[alpha]}
    record["seconds"] = round(time.monotonic() - began)
    write_json(results / f"{piece.name}.json", record)
    shutil.rmtree(folder, ignore_errors=True)
    return record


def _words(plan: Plan, piece: Piece, tables: Tables) -> list[str]:
    return [
        f"upstream={plan.upstreams[piece.upstream]}", f"task={piece.scenario}", f"strategy={piece.strategy}",
        "data=tsv", f"data.table={tables.fine_tuning}", "data.text=null", f"seed={piece.seed}",
        f"trainer.lr={plan.rate(piece.upstream, piece.scenario, piece.strategy):g}",
        f"trainer.steps={plan.length(piece.upstream)}",
        *plan.training(piece.scenario),
    ]  # fmt: skip


def _portable(words: list[str], tables: Tables) -> list[str]:
    """Overrides without the folders of this machine."""
    hidden = {str(tables.fine_tuning): "speechocean762/utterances.tsv"}
    shown = [hidden.get(value, value) for value in (word.partition("=")[2] for word in words)]
    return [
        f"{word.partition('=')[0]}={Path(value).name if value.startswith('/') else value}"
        for word, value in zip(words, shown, strict=True)
    ]


def _train(words: list[str], run: Path) -> dict[str, Any]:
    from speechft.train.finetune import finetune
    from speechft.train.metrics import read_metrics

    began = time.monotonic()
    done = finetune(words, run, latest=False)
    lines = read_metrics(done.metrics)
    losses = [round(float(line["loss"]), 4) for line in lines if "loss" in line]
    dev = {key: value for line in lines for key, value in line.items() if key.startswith("dev_")}
    return {"loss": losses, "dev": dev, "seconds": round(time.monotonic() - began)}


def _merge(run: Path, alphas: tuple[float, ...]) -> dict[float, Path]:
    from speechft.merge.merge import merge_run

    own = Run(run)
    folders = {alpha: own.merged / f"alpha-{alpha:g}" for alpha in alphas}
    missing = [alpha for alpha, folder in folders.items() if not (folder / "merge.json").is_file()]
    if missing:
        merge_run(own, missing)
    return folders


def _choice(run: Path, device: str) -> dict[str, Any]:
    """What `speechft merge RUN --alpha auto` chooses: by CKA on the dev set, and the dev metric of a refitted head."""
    from speechft.choosing.candidates import Candidates
    from speechft.choosing.choose import choose
    from speechft.choosing.drift import Drift
    from speechft.config.compose import read_config

    own = Run(run)
    config = read_config(own.config)
    found = choose(
        Candidates.of_run(own, config, {"method": "linear"}), Drift(own, config, device=device), run / "auto"
    )
    kept = ("alpha", "scores", "intervals", "on_front", "chosen_share")
    return {
        **{key: found[key] for key in ("chosen", "why", "rule", "objectives")},
        "candidates": [{key: one[key] for key in kept} for one in found["candidates"]],
    }


def _drift(source: str, models: dict[float, Path], corpora: Path, device: str) -> dict[float, dict[str, Any]]:
    """Features beside the pre-trained ones on SID's test speech, a corpus that is not fine-tuned on; and the update."""
    from speechft.analysis.audio import audio_set
    from speechft.analysis.similarity import layer_similarities
    from speechft.analysis.updates import update_norms
    from speechft.checkpoints.stream import FolderReader
    from speechft.upstreams.load import load_upstream, locate

    audio = audio_set(corpora / "asv" / "test")
    found = layer_similarities(
        load_upstream(source), [load_upstream(str(model)) for model in models.values()], audio.waves(), 8.0, device
    )
    base = FolderReader(locate(source))
    drift = {}
    for (alpha, model), layers in zip(models.items(), found, strict=True):
        update = update_norms(base, FolderReader(model))
        drift[alpha] = {
            "cka": [round(layer["cka"], 6) for layer in layers],
            "cosine": [round(layer["cosine"], 6) for layer in layers],
            "update": update["relative"],
        }
    return drift


def _scores(plan: Plan, piece: Piece, alpha: float, model: str, corpora: Path, folder: Path) -> dict[str, Any]:
    """All probes of one model, heads drawn by the piece's seed."""
    from speechft.console import Progress
    from speechft.report.collect import read_score
    from speechft.superb.evaluate import evaluate
    from speechft.superb.settings import compose

    probes = PROBES + (EXTRA if alpha in plan.extra.get(piece.strategy, ()) else ())
    scores = {}
    for probe in probes:
        task, out = TASK_OF.get(probe, probe), folder / "scores" / probe
        name = f"alpha-{alpha:g}"
        words = [
            *plan.probing(piece.upstream),
            *paths(corpora, probe),
            f"seed={piece.seed}",
            f"store={folder / 'store'}",
        ]
        with muted():
            evaluate({name: model}, [task], out=out, cfg=compose(words), progress=Progress(io.StringIO()))
        score = read_score(out / name / f"{task}.json")
        record, items = score.record, score.utterances
        tried = record.get("lr_search") or [{"lr": record["lr"], "dev": record["dev"]}]
        scores[probe] = {
            "value": round(score.value, 4),
            "metric": score.metric,
            "lr": record["lr"],
            "dev": {f"{one['lr']:g}": one["dev"].get(score.metric) for one in tried},
            "data": record.get("data_sha256", record.get("data")),
            "items": sha256_json(list(items.names))[:16] if items else None,
            "numbers": written(items.numbers.tolist()) if items else None,
            "groups": " ".join(map(str, _groups(items.names))) if items else None,
        }
        shutil.rmtree(folder / "store", ignore_errors=True)
    return scores


def written(rows: list[list[float]]) -> str:
    """Numbers of test items as a text: `3/12 0/9` are three errors in twelve phones, none in nine.

    To nine digits, which tell any two float32 apart: the cosines of ASV's trials may all lie close to 1, and their
    order is what the EER comes from.
    """
    return " ".join("/".join(f"{value:.9g}" for value in row) for row in rows)


def _groups(names: tuple[str, ...]) -> list[int]:
    """A number for the speaker (or the digit) of each test item: items of one are not independent."""
    keys = [name.split("/")[0].split("-")[0] for name in names]
    order = {key: number for number, key in enumerate(sorted(set(keys)))}
    return [order[key] for key in keys]
