"""α for every tensor: one for all, a list over depth, or patterns; and tensors that stay θ0's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from speechft.checkpoints.parts import depths_of, parts_of
from speechft.errors import UsageError


@dataclass(frozen=True)
class Choice:
    """What of α was chosen beyond one number for all.

    Attributes:
        at: pattern -> α there, the last match counts.
        by_depth: α from the first to the last layer, interpolated between.
        keep: patterns of tensors that stay θ0's.
    """

    at: Mapping[str, float]
    by_depth: Sequence[float]
    keep: Sequence[str]

    def checked(self, extrapolate: bool) -> Choice:
        """Itself.

        Raises:
            UsageError: an α out of range.
        """
        for alpha in (*self.at.values(), *self.by_depth):
            check_alpha(alpha, extrapolate)
        return self

    def per_tensor(self, names: Iterable[str], alpha: float, last_norm: bool = False) -> dict[str, float]:
        """Canonical name -> α.

        Args:
            names: of all tensors of the upstream.
            alpha: where nothing else is chosen.
            last_norm: see `parts.norm_last`.

        Raises:
            UsageError: a pattern that matches nothing.
        """
        parts = parts_of(names, last_norm)
        depths = depths_of(parts, last_norm)
        chosen = {name: self._at_depth(depths[name]) if self.by_depth else alpha for name in parts}
        for pattern, value in self.at.items():
            chosen.update(dict.fromkeys(matching(pattern, parts), value))
        for pattern in self.keep:
            chosen.update(dict.fromkeys(matching(pattern, parts), 0.0))
        return chosen

    def _at_depth(self, depth: float) -> float:
        place = depth * (len(self.by_depth) - 1)
        below = min(int(place), max(len(self.by_depth) - 2, 0))
        above = min(below + 1, len(self.by_depth) - 1)
        share = place - below
        return (1.0 - share) * self.by_depth[below] + share * self.by_depth[above]


def matching(pattern: str, parts: Mapping[str, str]) -> list[str]:
    """Names of tensors that a pattern means.

    Args:
        pattern: a part (`cnn`, `layers.3`), a tensor's name or the beginning of one up to a dot, or either with `*`.
        parts: name -> part, for all tensors.

    Raises:
        UsageError: none.
    """
    found = [
        name
        for name, part in parts.items()
        if fnmatchcase(part, pattern) or fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")
    ]
    if not found:
        known = list(dict.fromkeys(parts.values()))
        raise UsageError(
            f"no tensor matches {pattern!r}", f"parts: {', '.join(known)}; or names such as {next(iter(parts), '')}"
        )
    return found


def check_alpha(alpha: float, extrapolate: bool) -> None:
    """Whether α is a number in [0, 1], or any number where extrapolation was asked for.

    Raises:
        UsageError: it is not.
    """
    if not math.isfinite(alpha):
        raise UsageError(f"alpha {alpha} is not a number", "0.25 is the paper's")
    if not 0.0 <= alpha <= 1.0 and not extrapolate:
        raise UsageError(f"alpha {alpha:g} is outside [0, 1]", "that extrapolates: add --extrapolate if you mean it")


def checked_alphas(alphas: Sequence[float], extrapolate: bool) -> list[float]:
    """Different α in order.

    Raises:
        UsageError: none, one that is out of range, or two whose folders would have one name.
    """
    if not alphas:
        raise UsageError("no alpha was given", "0.25 is the paper's")
    for alpha in alphas:
        check_alpha(alpha, extrapolate)
    different = sorted({alpha + 0.0 for alpha in alphas})  # -0.0 is 0
    if len({f"{alpha:g}" for alpha in different}) < len(different):
        raise UsageError("two alphas are so near that their folders would have one name", "give at most six digits")
    return different


def read_at(words: Iterable[str]) -> dict[str, float]:
    """`layers.0=0.5 cnn=0` from the command line.

    Raises:
        UsageError: a word that is no such pair.
    """
    found = {}
    for word in words:
        pattern, equals, text = word.rpartition("=")
        try:
            if not equals or not pattern:
                raise ValueError
            found[pattern] = float(text)
        except ValueError:
            raise UsageError(f"{word!r} gives no part its alpha", "write PATTERN=A, such as layers.0=0.5") from None
    return found
