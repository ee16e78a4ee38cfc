"""QbE's score: the maximum term-weighted value, as the scoring package of QUESST 2014 computes it.

s3prl writes detections (`benchmark.stdlist.xml`) and leaves scoring to `./score-TWV-Cnxe.sh DIR
groundtruth_quesst14_eval -10` of the corpus (s3prl/downstream/docs/superb.md). That package knows every query and
document of its ground-truth folder, also those that are not English and therefore never searched: a pair without a
score counts with the default, -10. Since most queries are never searched, published values are small.

With N queries that occur somewhere, P_miss the fraction of a query's documents that is missed, and P_fa the fraction of
the other documents that is wrongly accepted at a threshold,

    TWV = 1 - 1/N sum over queries of (P_miss + beta P_fa),    beta = C_fa (1 - P_target) / (C_miss P_target)

(NIST's Spoken Term Detection 2006 evaluation plan, with documents as trials: Anguera et al., QUESST 2014, ICASSP 2015).
The costs are read from the corpus's own script; where it is missing they are those of the 2015 package's script:
P_target 0.0008, C_fa 1, C_miss 100.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from speechft.errors import SpeechFTError

DEFAULT_SCORE = -10.0
"""Of a pair that was not searched (the last argument in s3prl's call of the scoring script)."""

Scores = Mapping[str, Mapping[str, float]]
"""Query -> document -> score, higher for a better match."""


@dataclass(frozen=True)
class Costs:
    """What the scoring script passes to its tool."""

    target: float = 0.0008
    false_alarm: float = 1.0
    miss: float = 100.0

    @property
    def beta(self) -> float:
        return self.false_alarm * (1 - self.target) / (self.miss * self.target)


@dataclass(frozen=True)
class Truth:
    """What is to be found.

    Attributes:
        documents: all that are searched.
        targets: query -> the documents that hold it; queries that occur nowhere are left out, as the tool does.
    """

    documents: frozenset[str]
    targets: Mapping[str, frozenset[str]]

    def within(self, queries: Sequence[str], documents: Sequence[str]) -> Truth:
        """Only some queries and documents (the English ones, say)."""
        kept = self.documents & set(documents)
        targets = {query: self.targets[query] & kept for query in queries if query in self.targets}
        return Truth(kept, {query: found for query, found in targets.items() if found})


@dataclass(frozen=True)
class Value:
    """A term-weighted value at its best threshold.

    Attributes:
        mtwv: the value, at most 1; 0 is what finding nothing gets.
        threshold: scores from here on are accepted; infinite if nothing is.
        queries: each query's own `1 - P_miss - beta P_fa` there; their mean is `mtwv`.
    """

    mtwv: float
    threshold: float
    queries: Mapping[str, float]


def maximum(scores: Scores, truth: Truth, costs: Costs, default: float = DEFAULT_SCORE) -> Value:
    """The best value over all thresholds.

    Args:
        scores: of pairs of the truth's queries and documents; others are ignored, as are queries that occur nowhere.
        truth: the queries and documents that count.
        default: score of pairs that `scores` does not hold.

    Raises:
        SpeechFTError: no query occurs anywhere.
    """
    queries = sorted(truth.targets)
    if not queries:
        raise SpeechFTError("no query of the ground truth occurs in any document", "check data.quesst14")
    # an accepted pair moves its query's value by a fixed amount: up by its share of the query's documents, or down
    gains = {query: 1 / len(truth.targets[query]) for query in queries}
    others = {query: len(truth.documents) - len(truth.targets[query]) for query in queries}
    losses = {query: costs.beta / max(others[query], 1) for query in queries}
    rows, levels, moves = [], [], []
    for row, query in enumerate(queries):
        left = 1.0 - (costs.beta if others[query] else 0.0)  # of accepting all documents
        for document, score in scores.get(query, {}).items():
            if document in truth.documents:
                move = gains[query] if document in truth.targets[query] else -losses[query]
                left -= move
                rows.append(row)
                levels.append(score)
                moves.append(move)
        rows.append(row)
        levels.append(default)
        moves.append(left)
    height, share = np.array(levels, dtype=np.float64), np.array(moves, dtype=np.float64)
    order = np.argsort(-height, kind="stable")
    # rounded, so that of equally good thresholds the highest is taken, whatever the order of summation
    sums = (np.cumsum(share[order]) / len(queries)).round(12)
    last = np.flatnonzero(np.append(np.diff(height[order]) != 0, True))  # equal scores are accepted together
    best = last[np.argmax(sums[last])]
    threshold = float(height[order][best]) if sums[best] > 0 else float("inf")
    accepted = height >= threshold
    own = np.bincount(np.array(rows)[accepted], weights=share[accepted], minlength=len(queries))
    return Value(float(own.mean()), threshold, dict(zip(queries, own.tolist(), strict=True)))


def read_costs(scoring: Path) -> Costs:
    """`P_target`, `C_fa` and `C_miss` of the corpus's `scoring/score-TWV-Cnxe.sh`; the usual ones where it has none."""
    script = scoring / "score-TWV-Cnxe.sh"
    text = script.read_text(encoding="utf-8", errors="replace") if script.is_file() else ""
    found = {
        name: re.search(rf"^\s*{name}=([0-9.eE-]+)", text, re.MULTILINE) for name in ("P_target", "C_fa", "C_miss")
    }
    usual = Costs()
    values = [
        float(match.group(1)) if match else default
        for match, default in zip(found.values(), (usual.target, usual.false_alarm, usual.miss), strict=True)
    ]
    return Costs(*values)


def read_truth(folder: Path) -> Truth:
    """A ground-truth folder: `*.rttm` (what occurs where), `*.ecf.xml` (documents), `*.tlist.xml` (queries).

    Raises:
        SpeechFTError: a file is missing or damaged.
    """
    rttm, ecf, tlist = (_only(folder, pattern) for pattern in ("*.rttm", "*.ecf.xml", "*.tlist.xml"))
    excerpts = [one.get("audio_filename", "") for one in _xml(ecf).iter("excerpt")]
    documents = frozenset(Path(name).stem for name in excerpts)
    terms = {}  # the rttm names a query by its text, which here is its name
    for term in _xml(tlist).iter("term"):
        name = term.get("termid", "")
        terms[name] = terms[(term.findtext("termtext") or name).strip()] = name
    targets: dict[str, set[str]] = {}
    for line in rttm.read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split()  # LEXEME document channel begin duration query ...
        if len(fields) > 5 and fields[0] == "LEXEME" and fields[5] in terms and fields[1] in documents:
            targets.setdefault(terms[fields[5]], set()).add(fields[1])
    return Truth(documents, {query: frozenset(found) for query, found in targets.items()})


def read_detections(path: Path) -> dict[str, dict[str, float]]:
    """What s3prl's expert writes (NIST's stdlist): query -> document -> score, as rounded there.

    Raises:
        SpeechFTError: missing or damaged.
    """
    scores: dict[str, dict[str, float]] = {}
    for query in _xml(path).iter("detected_termlist"):
        scores[query.get("termid", "")] = {term.get("file", ""): float(term.get("score", "nan")) for term in query}
    return scores


def missing_truth(folder: Path) -> list[str]:
    """Names of the kinds of file that a ground-truth folder lacks."""
    return [pattern for pattern in ("*.rttm", "*.ecf.xml", "*.tlist.xml") if not any(folder.glob(pattern))]


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise SpeechFTError(f"{folder} has {len(found)} files {pattern}", "it must have one; unpack the corpus again")
    return found[0]


def _xml(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise SpeechFTError(f"{path} cannot be read ({error})", "unpack the corpus again") from error
