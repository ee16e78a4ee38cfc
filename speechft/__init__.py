"""speechft: fine-tune self-supervised speech upstreams and keep what they knew (Speech-FT, arXiv 2502.12672).

The commands from Python; everything heavy is imported at first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "__version__", "analyze", "audio_set", "evaluate", "finetune", "layer_similarity", "load_audio", "load_upstream",
    "merge",
]  # fmt: skip

if TYPE_CHECKING:
    from speechft.analysis.analyze import analyze
    from speechft.analysis.audio import audio_set
    from speechft.analysis.similarity import layer_similarity
    from speechft.data.audio import load_audio
    from speechft.superb.evaluate import evaluate
    from speechft.train.finetune import finetune
    from speechft.upstreams.load import load_upstream

_HOMES = {
    "analyze": "speechft.analysis.analyze",
    "audio_set": "speechft.analysis.audio",
    "layer_similarity": "speechft.analysis.similarity",
    "load_audio": "speechft.data.audio",
    "load_upstream": "speechft.upstreams.load",
    "finetune": "speechft.train.finetune",
    "evaluate": "speechft.superb.evaluate",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'speechft' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def merge(*args: Any, **kwargs: Any) -> Any:
    """See `speechft.merge.merge.merge`; a function here, because a package of this name stands beside it."""
    from speechft.merge.merge import merge as merge_models

    return merge_models(*args, **kwargs)
