"""The study's results, as its tables and pictures ask for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechft.files import read_json
from speechft.study.differences import Difference, difference
from speechft.study.plan import PRETRAINED, STRATEGIES, TITLES

Scores = Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """All results.

    Attributes:
        models: (upstream, scenario, strategy, α) -> seed -> a model's `scores`, `cka`, `update`.
        choices: (scenario, upstream, strategy, seed) -> what `--alpha auto` chose, and every α's scores.
    """

    models: Mapping[tuple[str, str, str, float], Mapping[int, Mapping[str, Any]]]
    choices: Mapping[tuple[str, str, str, int], Mapping[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> Study:
        choices: dict[tuple[str, str, str, int], Mapping[str, Any]] = {}
        models: dict[tuple[str, str, str, float], dict[int, Mapping[str, Any]]] = defaultdict(dict)
        for path in sorted(folder.glob("*.json")):
            record = read_json(path)
            if "auto" in record:
                piece = (record["scenario"], record["upstream"], record["strategy"], int(record["seed"]))
                choices[piece] = record["auto"]
            for alpha, model in record["models"].items():
                key = (record["upstream"], record["scenario"], record["strategy"], float(alpha))
                models[key][int(record["seed"])] = model
        return cls(dict(models), choices)

    def upstreams(self, scenario: str) -> list[str]:
        return sorted({key[0] for key in self.models if key[1] == scenario})

    def rows(self, upstream: str, scenario: str) -> list[tuple[str, float]]:
        """Strategies and α that were measured, in the order of a table."""
        found = {key[2:] for key in self.models if key[:2] == (upstream, scenario)}
        return sorted(found, key=lambda row: (STRATEGIES.index(row[0]), -row[1]))

    def at(self, upstream: str, scenario: str, row: tuple[str, float]) -> list[Mapping[str, Any]]:
        """A row's model of each seed."""
        return list(self.models.get((upstream, scenario, row[0], row[1]), {}).values())

    def scores(self, upstream: str, scenario: str, strategy: str, alpha: float, probe: str) -> dict[int, Scores]:
        models = self.models.get((upstream, scenario, strategy, alpha), {})
        return {seed: model["scores"][probe] for seed, model in models.items() if probe in model["scores"]}

    def pretrained(self, upstream: str, probe: str) -> dict[int, Scores]:
        return self.scores(upstream, "", PRETRAINED, 0.0, probe)

    def probes(self, upstream: str) -> list[str]:
        return [probe for probe in TITLES if self.pretrained(upstream, probe)]

    def against(self, upstream: str, scenario: str, row: tuple[str, float], probe: str) -> Difference | None:
        """A model beside the pre-trained upstream, over the seeds that both have."""
        ours, base = self.scores(upstream, scenario, *row, probe), self.pretrained(upstream, probe)
        seeds = sorted(ours.keys() & base.keys())
        return difference([base[seed] for seed in seeds], [ours[seed] for seed in seeds]) if seeds else None
