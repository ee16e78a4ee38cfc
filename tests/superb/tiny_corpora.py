"""Tiny corpora in the official layouts: tones whose pitch tells speaker, word or phone. And a small random upstream."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
LEXICON = {"BAD": "B AE1 D", "CAB": "K AE1 B", "DAB": "D AE1 B", "ADD": "AE1 D", "BACK": "B AE1 K"}
PITCH = {"B": 300, "D": 500, "K": 800, "AE1": 1300}


def tone(hertz: float, seconds: float, seed: int) -> np.ndarray:
    """A noisy tone, `[samples]` float32."""
    time = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).normal(0, 0.02, len(time))
    return (0.3 * np.sin(2 * np.pi * hertz * time) + noise).astype(np.float32)


def write(path: Path, wave: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, RATE)


def make_librispeech(root: Path) -> None:
    words, generator = list(LEXICON), np.random.default_rng(0)
    for split, chapters in (("train-clean-100", 3), ("dev-clean", 1), ("test-clean", 1)):
        for chapter in range(chapters):
            folder = root / split / "19" / str(chapter)
            lines = []
            for number in range(4):
                sentence = [words[i] for i in generator.integers(0, len(words), generator.integers(1, 5))]
                phones = [phone for word in sentence for phone in LEXICON[word].split()]
                name = f"19-{chapter}-{split[0]}{number:03d}"
                seconds = 0.12 if split == "train-clean-100" else 0.1
                waves = [tone(PITCH[p], seconds + 0.01 * i, i + number) for i, p in enumerate(phones)]
                write(folder / f"{name}.flac", np.concatenate(waves))
                lines.append(f"{name} {' '.join(sentence)}")
            (folder / f"19-{chapter}.trans.txt").write_text("\n".join(lines) + "\n")
    (root / "lexicon.txt").write_text("".join(f"{word}\t{phones}\n" for word, phones in LEXICON.items()))


def make_voxceleb(root: Path, seconds: tuple[float, float] = (0.3, 0.9)) -> None:
    lines, generator = [], np.random.default_rng(1)
    for speaker in range(4):
        for number in range(6):
            name = f"id{10001 + speaker}/session{number % 2}/{number:05d}.wav"
            part = "test" if number == 5 else "dev"
            length = generator.uniform(*seconds)
            write(root / part / "wav" / name, tone(250 * (speaker + 1), length, 10 * speaker + number))
            lines.append(f"{1 if number < 4 else number - 2} {name}")
    (root / "iden_split.txt").write_text("\n".join(lines) + "\n")
    tested = sorted(str(path.relative_to(root / "test" / "wav")) for path in (root / "test" / "wav").rglob("*.wav"))
    trials = [f"{int(one == other)} {one} {other}" for one in tested for other in tested]
    (root / "voxceleb1_test_v2.txt").write_text("\n".join(trials) + "\n")


def _ks_split(name: str) -> str:
    """Where Speech Commands' own rule puts a file (by the hash of the speaker)."""
    speaker = name.split("_nohash_")[0]
    percent = (int(hashlib.sha1(speaker.encode()).hexdigest(), 16) % 2**27) * (100.0 / (2**27 - 1))
    return "dev" if percent < 10 else "test" if percent < 20 else "train"


def make_speech_commands(root: Path, test: Path, noise_seconds: float = 1.0) -> None:
    speakers = [f"{number:08x}_nohash_0.wav" for number in range(400)]
    train = [name for name in speakers if _ks_split(name) == "train"][:4]
    dev = [name for name in speakers if _ks_split(name) == "dev"][:2]
    words = ["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "bed"]
    for index, word in enumerate(words):
        for number, name in enumerate(train + dev):
            write(root / word / name, tone(200 + 130 * index, 0.4 + 0.1 * number, index * 10 + number))
        folder = test / (word if word != "bed" else "_unknown_")
        write(folder / "test.wav", tone(205 + 130 * index, 0.6, index))
    for number in range(2):
        write(root / "_background_noise_" / f"noise{number}.wav", tone(60, noise_seconds, number))
    write(test / "_silence_" / "test.wav", tone(60, 1.0, 7))


@dataclass(frozen=True)
class Corpora:
    """The corpora and the configuration that names them."""

    root: Path

    @property
    def data(self) -> dict[str, str]:
        return {
            "librispeech": str(self.root / "ls"),
            "lexicon": str(self.root / "ls" / "lexicon.txt"),
            "voxceleb1": str(self.root / "vox"),
            "librimix": str(self.root / "mix" / "data"),
            "speech_commands": str(self.root / "sc"),
            "speech_commands_test": str(self.root / "sc_test"),
            "snips": str(self.root / "snips"),
            "fluent_commands": str(self.root / "fsc"),
            "iemocap": str(self.root / "iemocap"),
            "quesst14": str(self.root / "quesst14Database"),
            "voicebank": str(self.root / "voicebank"),
            "libri2mix": str(self.root / "libri2mix"),
        }


SMALL = {"steps": 6, "eval_step": 3, "log_step": 3, "save_step": 3, "num_workers": 0, "crops": 2, "project_dim": 16}
# the official masks would hide all of the tiny upstream's 32 features
SPECAUG = {
    "time_warp_window": 2, "freq_mask_width_range": [0, 6], "num_freq_mask": 2, "time_mask_width_range": [0, 4],
    "num_time_mask": 2, "adaptive": False,
}  # fmt: skip
RECURRENT = {"rnn_dims": [24, 16], "dropout": 0.2, "specaug": SPECAUG, "lr": 1e-2}
RECIPES = {
    "pr": {**SMALL, "batch_size": 3, "accumulate": 2, "lr": 1e-2},
    "sid": {**SMALL, "batch_size": 4, "accumulate": 2, "lr": 1e-2},
    "ks": {**SMALL, "batch_size": 8, "accumulate": 1, "lr": 1e-2},
    "asv": {**SMALL, "batch_size": 3, "accumulate": 2, "lr": 3e-3, "min_seconds": 0.4},
    "sd": {**SMALL, "batch_size": 3, "accumulate": 2, "lr": 1e-2, "chunk_frames": 50},
    "asr": {**SMALL, "batch_size": 4, "accumulate": 1, **RECURRENT},
    "sf": {**SMALL, "batch_size": 3, "accumulate": 2, **RECURRENT},
    "ic": {**SMALL, "batch_size": 4, "accumulate": 1, "lr": 1e-2, "eval_batch_size": 3},
    "er": {**SMALL, "batch_size": 4, "accumulate": 2, "lr": 1e-2, "eval_batch_size": 2, "folds": [2, 5]},
    "qbe": {"num_workers": 0, "workers": 1},
    "se": {**SMALL, "batch_size": 3, "accumulate": 2, "lr": 1e-2, "rnn_layers": 1, "dropout": 0.0},
    "ss": {**SMALL, "batch_size": 3, "accumulate": 1, "lr": 1e-2, "rnn_layers": 2, "n_fft": 512, "win_length": 512},
}


def save_upstream(folder: Path, seed: int) -> Path:
    """A random HuBERT of three layers, base style (group norm), as a Hugging Face folder."""
    import torch
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    config = HubertConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64, conv_dim=(16, 16, 16, 16),
        conv_kernel=(10, 8, 4, 4), conv_stride=(5, 8, 4, 2), num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        HubertModel(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)
    return folder
