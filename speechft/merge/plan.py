"""What a merge will do, with everything checked that can be without reading the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechft.checkpoints.convert import check_beside
from speechft.checkpoints.parts import norm_last
from speechft.checkpoints.tensor_file import TensorInfo
from speechft.errors import UsageError
from speechft.merge.alphas import Choice, checked_alphas
from speechft.merge.method import Method
from speechft.merge.methods._tensors import no_extrapolation
from speechft.merge.parents import Parents, open_parents
from speechft.merge.registry import method_named
from speechft.merge.statistics import Statistics, needed
from speechft.merge.streaming import infos_of
from speechft.merge.targets import check_target, folder_name


@dataclass
class Plan:
    """A merge that can begin. It holds its parents, and files of statistics, open.

    Attributes:
        method: with these `parameters`.
        choice: of α by tensor.
        alphas: one a model; with α by depth, its mean.
        maps: for each model, canonical name -> α.
        weight_norm: `stored` or `effective`.
        parents: θ0 and θ'_k.
        infos: types and shapes of the result.
        targets: the models' folders.
        statistics: files that were given.
    """

    method: Method
    parameters: dict[str, Any]
    choice: Choice
    alphas: list[float]
    maps: list[dict[str, float]]
    weight_norm: str
    parents: Parents
    infos: dict[str, TensorInfo]
    targets: list[Path]
    statistics: Statistics | None = None

    @property
    def effective(self) -> bool:
        """Whether weight norm is merged as the weight it stands for."""
        return self.weight_norm == "effective"

    @property
    def whole(self) -> bool:
        """Whether the method trims whole models."""
        return self.method.trims and bool(self.parameters["scope"] == "model")

    def close(self) -> None:
        self.parents.close()
        if self.statistics is not None:
            self.statistics.close()


def planned(
    pretrained: str | Path, finetuned: Sequence[str | Path], alphas: Sequence[float] | None, method: str, out: Path,
    extrapolate: bool = False, to: str | None = None, *, parameters: Mapping[str, Any] | None = None,
    alpha_at: Mapping[str, float] | None = None, alpha_by_depth: Sequence[float] | None = None,
    keep: Sequence[str] = (), weight_norm: str = "stored", statistics: Sequence[str | Path] | None = None,
    corpus: str | None = None,
) -> Plan:  # fmt: skip
    """A plan from the arguments of `merge`.

    Raises:
        UsageError, SpeechFTError: as `merge`, but for what only the weights can tell.
    """
    chosen = method_named(method)
    values = chosen.read(parameters or {}, len(finetuned) or 1)
    needed(chosen, statistics, corpus)
    if weight_norm not in ("stored", "effective"):
        raise UsageError(f"weight norm cannot be merged as {weight_norm!r}", "known: stored, effective")
    if weight_norm == "effective" and chosen.statistics:
        raise UsageError(f"{chosen.name} has statistics of the stored weights", "leave --weight-norm effective out")
    if weight_norm == "effective" and chosen.trims and values["scope"] == "model":
        raise UsageError("scope=model is of the stored weights", "leave --weight-norm effective out")
    choice = Choice(dict(alpha_at or {}), list(alpha_by_depth or ()), list(keep)).checked(extrapolate)
    if choice.by_depth and alphas:
        raise UsageError("alpha is given twice", "give either one for all or a list over depth")
    if choice.by_depth:
        labels = [sum(choice.by_depth) / len(choice.by_depth)]
    else:
        labels = checked_alphas([chosen.alpha] if alphas is None else alphas, extrapolate)
    if chosen.statistics:  # before they are collected, which may take hours
        for alpha in (*labels, *choice.at.values(), *choice.by_depth):
            no_extrapolation(chosen.name, alpha)
    parents = open_parents(pretrained, finetuned)
    try:
        check_beside(str(parents.base.config.get("model_type")), to, str(pretrained))
        infos = infos_of(parents.base, parents.tuned)
        maps = [choice.per_tensor(infos, alpha, norm_last(parents.base.config)) for alpha in labels]
        effective = weight_norm == "effective"
        targets = [out / folder_name(chosen.name, alpha, choice, effective) for alpha in labels]
        for target in targets:
            check_target(target, parents)
        found = Statistics(statistics, str(chosen.statistics), len(parents.paths)) if statistics else None
    except BaseException:
        parents.close()
        raise
    return Plan(chosen, values, choice, labels, maps, weight_norm, parents, infos, targets, found)
