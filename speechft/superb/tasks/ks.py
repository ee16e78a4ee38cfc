"""KS: ten words, `_unknown_` and `_silence_` of Speech Commands v0.01 (s3prl/downstream/speech_commands)."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from speechft.superb.scopes import swapped
from speechft.superb.tasks.utterance import UtteranceTask

_SILENCE_SAMPLES = 16_000
_WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")


class KS(UtteranceTask):
    """`_silence_` of the training and dev sets is a second drawn at random from a few long noise files."""

    name = "ks"
    folder = "speech_commands"
    needs: ClassVar[Mapping[str, str]] = {
        "speech_commands": "Speech Commands v0.01, download.tensorflow.org/data/speech_commands_v0.01.tar.gz",
        "speech_commands_test": "its test set, download.tensorflow.org/data/speech_commands_test_set_v0.01.tar.gz",
    }

    resamples = True

    def missing_inside(self, data: Mapping[str, Any], there: Collection[str]) -> list[str]:
        problems = []
        for key in there:
            (folder,) = self.paths(data, key)[:1]
            others = ("_background_noise_",) if key == "speech_commands" else ("_unknown_", "_silence_")
            absent = [f"{name}/*.wav" for name in (*_WORDS, *others) if not any((folder / name).glob("*.wav"))]
            if absent:
                problems.append(f"{folder} has no {', '.join(absent)} ({self.needs[key]})")
        return problems

    def expert_config(self, settings: Mapping[str, Any], data: Mapping[str, Any], work: Path) -> dict[str, Any]:
        del work
        return {
            "datarc": {
                "speech_commands_root": str(self.paths(data, "speech_commands")[0]),
                "speech_commands_test_root": str(self.paths(data, "speech_commands_test")[0]),
                "num_workers": int(settings["num_workers"]),
                "batch_size": int(settings["batch_size"]),
            },
            "modelrc": {
                "projector_dim": int(settings["project_dim"]),
                "select": "UtteranceLevel",
                "UtteranceLevel": {"pooling": "MeanPooling"},
            },
        }

    def settle(self, expert: Any) -> None:
        """s3prl lists folders in the file system's order, so equal seeds would draw different batches elsewhere."""
        for split in ("train", "dev"):
            dataset = self.dataset(expert, split)
            # the class too: the noise files could also stand in a folder of words
            pairs = sorted(zip(dataset.data, dataset.sample_weights, strict=True), key=lambda pair: _key(pair[0]))
            dataset.data = [element for element, _ in pairs]
            dataset.sample_weights = [weight for _, weight in pairs]
        test = self.dataset(expert, "test")
        test.data = sorted(test.data, key=_key)

    def dataset(self, expert: Any, split: str) -> Any:
        return getattr(expert, f"{split}_dataset")

    def files(self, expert: Any, split: str) -> list[Path]:
        return [Path(path) for _, path in self.dataset(expert, split).data]

    def root(self, data: Mapping[str, Any], split: str) -> Path:
        return self.paths(data, "speech_commands_test" if split == "test" else "speech_commands")[0]

    def reading(self, settings: Mapping[str, Any]) -> str:
        del settings
        return "ks: one channel, 16 kHz, -3 dB; training and dev silence is one second"

    def crop(self, expert: Any, split: str, index: int, samples: int) -> tuple[int, bool]:
        if split != "test" and self.dataset(expert, split).data[index][0] == "_silence_":
            return _SILENCE_SAMPLES, samples > _SILENCE_SAMPLES
        return samples, False

    @contextlib.contextmanager
    def without_audio(self) -> Iterator[None]:
        import torch
        from s3prl.downstream.speech_commands import dataset

        silence = torch.zeros(1, _SILENCE_SAMPLES)
        with swapped(dataset, "apply_effects_file", lambda *_, **__: (silence, 16_000)):
            yield


def _key(element: tuple[str, Any]) -> tuple[str, str]:
    return str(element[1]), element[0]
