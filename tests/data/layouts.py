"""Tiny corpora in the layouts of their releases, made on the spot."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import soundfile

_NUMBERS = itertools.count()


def noise(path: Path, seconds: float = 0.3, rate: int = 16_000, channels: int = 1, **options) -> Path:
    """Noise that no other file has."""
    generator = np.random.default_rng(next(_NUMBERS))
    samples = 0.1 * generator.standard_normal((round(seconds * rate), channels))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **options)
    return path


def sphere(path: Path, samples: np.ndarray, rate: int = 16_000) -> Path:
    """NIST SPHERE as TED-LIUM has it, by its definition: a header of 1024 bytes, then 16-bit little-endian PCM."""
    fields = ["channel_count -i 1", f"sample_rate -i {rate}", f"sample_count -i {len(samples)}",
              "sample_n_bytes -i 2", "sample_byte_format -s2 01", "sample_sig_bits -i 16", "sample_coding -s3 pcm",
              "end_head"]  # fmt: skip
    header = "\n".join(["NIST_1A", "   1024", *fields]) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.encode().ljust(1024) + (samples * 32767).astype("<i2").tobytes())
    return path


def tedlium3(root: Path) -> Path:
    """Two talks to train on, of 40 s; one for dev."""
    talks = {
        "train": {
            "Bea_2010": ["0.50 3.00 <NA> it 's a well-known start", "3.00 3.40 <NA> too short",
                         "4.00 9.00 <NA> with <unk> inside", "10.00 19.00 <NA> nine seconds of talk"],
            "Abe_2009": ["1.00 11.00 <NA> ten seconds", "12.00 20.00 <NA> eight seconds {NOISE} more"],
        },
        "dev": {"Dev_2008": ["0.00 2.00 <o,f0,female> ignore_time_segment_in_scoring",
                             "2.00 5.00 <o,f0,female> a woman speaks"]},
    }  # fmt: skip
    for split, lines in talks.items():
        for talk, segments in lines.items():
            generator = np.random.default_rng(next(_NUMBERS))
            sphere(root / "legacy" / split / "sph" / f"{talk}.sph", 0.1 * generator.standard_normal(40 * 16_000))
            stm = root / "legacy" / split / "stm" / f"{talk}.stm"
            stm.parent.mkdir(parents=True, exist_ok=True)
            stm.write_text("".join(f"{talk} 1 {talk} {segment}\n" for segment in segments))
    return root


def voxceleb1(root: Path) -> Path:
    lines = []
    for speaker, part in (("id10001", "dev"), ("id10002", "dev"), ("id10270", "test")):
        for number, code in enumerate((1, 1, 2, 3)):
            name = f"{speaker}/vid{number}/00001.wav"
            noise(root / part / "wav" / name)
            lines.append(f"{code} {name}")
    (root / "iden_split.txt").write_text("\n".join(lines) + "\n")
    header = "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet"
    (root / "vox1_meta.csv").write_text(f"{header}\nid10001\tA\tm\tIreland\tdev\nid10270\tB\tf\tIndia\ttest\n")
    return root


def speech_commands(root: Path, test: Path) -> tuple[Path, Path]:
    for word in ("yes", "no", "bed"):
        for speaker in ("aaaaaaaa", "bbbbbbbb", "cccccccc", "dddddddd"):
            noise(root / word / f"{speaker}_nohash_0.wav")
        noise(test / f"{'_unknown_/bed_' if word == 'bed' else f'{word}/'}eeeeeeee_nohash_1.wav")
    (root / "validation_list.txt").write_text("yes/bbbbbbbb_nohash_0.wav\nbed/bbbbbbbb_nohash_0.wav\n")
    (root / "testing_list.txt").write_text("no/cccccccc_nohash_0.wav\n")
    for name in ("tap", "cat"):
        noise(root / "_background_noise_" / f"{name}.wav", seconds=10.4)
    noise(test / "_silence_" / "0.wav")
    return root, test


def fluent_commands(root: Path) -> Path:
    (root / "data").mkdir(parents=True)
    for table, speakers in (("train", "ab"), ("valid", "c"), ("test", "d")):
        lines = [",path,speakerId,transcription,action,object,location"]
        for speaker in speakers:
            name = f"wavs/speakers/{speaker}/{speaker}-1.wav"
            noise(root / name)
            lines.append(f'{len(lines) - 1},{name},{speaker},"Lights, on",activate,lights,none')
        (root / "data" / f"{table}_data.csv").write_text("\n".join(lines) + "\n")
    header = "speakerId,Self-reported fluency level ,gender,ageRange"
    (root / "data" / "speaker_demographics.csv").write_text(f"{header}\na,native,female,22-40\nb,native,male,22-40\n")
    return root


def snips(root: Path) -> Path:
    lines = []
    for split, voices in (("train", ("Ivy", "Joey", "Nobody")), ("valid", ("Amy",)), ("test", ("Brian",))):
        for voice in voices:
            name = f"{voice}-snips-{split}-0"
            noise(root / split / f"{name}.wav")
            lines.append(f"{name} BOS PLAY BAD BAND EOS\tO O album album PlayMusic")
    noise(root / "train" / "Ivy-snips-train-9.wav")  # without a line
    (root / "all.iob.snips.txt").write_text("\n".join(lines) + "\n")
    return root


def iemocap(root: Path) -> Path:
    for session in range(1, 6):
        part, dialogue = root / f"Session{session}", f"Ses0{session}F_impro01"
        labels, texts = [], []
        for number, emotion in enumerate(("neu", "exc", "ang", "sad", "fru", "xxx")):
            name = f"{dialogue}_{'FM'[number % 2]}{number:03d}"
            noise(part / "sentences" / "wav" / dialogue / f"{name}.wav")
            labels += [
                f"[{number}.0000 - {number}.5000]\t{name}\t{emotion}\t[2.5, 2.5, 2.5]",
                "C-E2:\tNeutral;\t()",
                "",
            ]
            texts.append(f"{name} [00{number}.0000-00{number}.5000]: Excuse me.")
        for folder, lines in (("EmoEvaluation", labels), ("transcriptions", texts)):
            (part / "dialog" / folder).mkdir(parents=True)
            (part / "dialog" / folder / f"{dialogue}.txt").write_text("\n".join(lines) + "\n")
        (part / "dialog" / "EmoEvaluation" / f"._{dialogue}.txt").write_bytes(b"\x00\x05\x16\x07\xff")
    return root


def crema_d(root: Path) -> Path:
    for actor in range(1001, 1021):
        for emotion in ("ANG", "SAD"):
            noise(root / "AudioWAV" / f"{actor}_DFA_{emotion}_XX.wav")
    rows = "".join(f"{actor},30,{'Female' if actor % 2 else 'Male'},x,y\n" for actor in range(1001, 1021))
    (root / "VideoDemographics.csv").write_text(f"ActorID,Age,Sex,Race,Ethnicity\n{rows}")
    return root


def aishell3(root: Path) -> Path:
    for split, speakers in (("train", ("SSB0005", "SSB0009")), ("test", ("SSB0011",))):
        lines = []
        for speaker in speakers:
            name = f"{speaker}0001.wav"
            noise(root / split / "wav" / speaker / name, rate=44_100)
            lines.append(f"{name}\t广 guang3 州 zhou1\n")
        (root / split / "content.txt").write_text("".join(lines), encoding="utf-8")
    (root / "spk-info.txt").write_text("# comment\nSSB0005\tB\tfemale\tnorth\nSSB0009\tA\tmale\tsouth\n")
    return root


def common_voice(root: Path) -> Path:
    columns = [
        "client_id",
        "path",
        "sentence",
        "up_votes",
        "down_votes",
        "age",
        "gender",
        "accents",
        "locale",
        "segment",
    ]
    for split, clients in (("train", "ab"), ("dev", "c")):
        lines = ["\t".join(columns)]
        for client in clients:
            name = f"common_voice_cy_{client}.mp3"
            noise(root / "cy" / "clips" / name, rate=32_000, format="MP3")
            lines.append(f'{client}\t{name}\tMae "hi’n braf, heddiw!\t2\t0\ttwenties\tfemale\t\tcy\t')
        (root / "cy" / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root
