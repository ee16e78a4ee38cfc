"""Layouts: which clip goes where, in the folder layouts of LibriSpeech, VoxCeleb1 and Speech Commands.

Nothing is made here: a plan lists the clips and holds the text files. The same seed and size give the same plan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from speechft.data.synthetic.sentences import KEYWORDS, UNKNOWN_WORDS, sentence
from speechft.data.synthetic.sizes import CorpusSize
from speechft.data.synthetic.speakers import generator

SENTENCE, WORD, NOISE = "sentence", "word", "noise"
NOISES = ("white_noise", "pink_noise", "brown_noise", "mains_hum", "distant_voices", "rain_on_glass")


@dataclass(frozen=True)
class Clip:
    """One audio file to make; its own samples follow from the seed and these fields alone.

    Args:
        path: relative to the corpus, with ``/``.
        part: what it counts as in the corpus's description.
        kind: ``sentence``, ``word`` (cut to a second) or ``noise``.
        text: lower-case words; for a noise, which one.
        speaker: names the speaker; empty for a noise.
        session: names the channel.
        seconds: wanted length; 0 leaves it to the text.
    """

    path: str
    part: str
    kind: str
    text: str
    speaker: str
    session: str
    seconds: float = 0.0


@dataclass
class Plan:
    """``clips`` to make and ``texts`` to write, by path relative to the corpus."""

    clips: list[Clip] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)


def plan_corpus(size: CorpusSize, seed: int) -> Plan:
    """Everything that a corpus of this size holds, except the lexicon."""
    plan = Plan()
    _plan_librispeech(plan, size, seed)
    if size.sid_speakers:
        _plan_voxceleb1(plan, size, seed)
    if size.keyword_train:
        _plan_speech_commands(plan, size, seed)
    return plan


_FIRST_SPEAKER = {
    "train-other-500": 5000,
    "dev-other": 6000,
    "train-clean-100": 1000,
    "dev-clean": 2000,
    "test-clean": 3000,
}


def _plan_librispeech(plan: Plan, size: CorpusSize, seed: int) -> None:
    for split, amount in size.splits().items():
        transcripts: dict[str, list[str]] = {}
        for index in range(amount.utterances):
            speaker = _FIRST_SPEAKER[split] + index % amount.speakers
            turn = index // amount.speakers
            chapter = 10 * speaker + turn % 2  # two chapters a speaker
            name = f"{speaker}-{chapter}-{turn // 2:04d}"
            text = sentence(generator(seed, "text", split, name), *size.words)
            folder = f"librispeech/{split}/{speaker}/{chapter}"
            transcripts.setdefault(f"{folder}/{speaker}-{chapter}.trans.txt", []).append(f"{name} {text.upper()}\n")
            plan.clips.append(
                Clip(f"{folder}/{name}.flac", split, SENTENCE, text, f"librispeech {speaker}", f"librispeech {name}")
            )
        plan.texts |= {path: "".join(lines) for path, lines in transcripts.items()}


_PER_SESSION = 3


def _plan_voxceleb1(plan: Plan, size: CorpusSize, seed: int) -> None:
    lines = []
    for index in range(size.sid_speakers):
        speaker = f"id{10001 + index}"
        for code, (part, amount) in enumerate(
            (("train", size.sid_train), ("dev", size.sid_dev), ("test", size.sid_test)), start=1
        ):
            for turn in range(amount):
                # No session spans two parts, so knowing a channel from training is of no use later.
                number = turn // _PER_SESSION
                session = _hash(seed, speaker, part, number)[:11]
                name = f"{speaker}/{session}/{turn % _PER_SESSION + 1:05d}.wav"
                text = sentence(generator(seed, "text", "voxceleb1", name), *size.words)
                lines.append(f"{code} {name}\n")
                plan.clips.append(
                    Clip(
                        f"voxceleb1/dev/wav/{name}",
                        f"voxceleb1 {part}",
                        SENTENCE,
                        text,
                        f"voxceleb1 {speaker}",
                        f"voxceleb1 {session}",
                    )
                )
    plan.texts["iden_split.txt"] = "".join(lines)


def _hash(*key: object) -> str:
    return hashlib.sha256("/".join(map(str, key)).encode()).hexdigest()


def held_out_percentage(speaker_hash: str) -> float:
    """Where Speech Commands' own rule puts a speaker: below 10 is validation, below 20 nothing, from there on training.

    Args:
        speaker_hash: the part of a file's name before ``_nohash_``.
    """
    most = 2**27 - 1
    return (int(hashlib.sha1(speaker_hash.encode()).hexdigest(), 16) % (most + 1)) * (100.0 / most)


def _speaker_hashes(seed: int, part: str) -> Iterator[str]:
    """Speaker hashes that the rule puts into this part, without end."""
    number = 0
    while True:
        candidate = _hash(seed, "speech commands", part, number)[:8]
        number += 1
        percentage = held_out_percentage(candidate)
        if part == "test" or (percentage < 10 if part == "dev" else percentage >= 20):
            yield candidate


def _plan_speech_commands(plan: Plan, size: CorpusSize, seed: int) -> None:
    parts = (
        ("train", size.keyword_train, size.unknown_train, size.keyword_repeats),
        ("dev", size.keyword_dev, size.unknown_dev, 1),
        ("test", size.keyword_test, size.keyword_test, 1),
    )
    validation = []
    for part, keyword_clips, unknown_clips, repeats in parts:
        count = max(-(-keyword_clips // repeats), 2)
        hashes = _speaker_hashes(seed, part)
        speakers = [next(hashes) for _ in range(count)]
        turns = [(word, turn) for word in KEYWORDS for turn in range(keyword_clips)]
        others = len(UNKNOWN_WORDS)
        turns += [(UNKNOWN_WORDS[turn % others], turn // others) for turn in range(unknown_clips)]
        for position, (word, turn) in enumerate(turns):
            unknown = word not in KEYWORDS
            # Unknown words go round the speakers, so that none of them belongs to one word.
            speaker = speakers[(position if unknown else turn) % count]
            name = f"{speaker}_nohash_{turn // count if not unknown else turn}.wav"
            if part == "test":
                folder = "_unknown_" if unknown else word
                path = f"speech_commands_test/{folder}/{word + '_' if unknown else ''}{name}"
            else:
                path = f"speech_commands/{word}/{name}"
            if part == "dev":
                validation.append(path.removeprefix("speech_commands/") + "\n")
            plan.clips.append(
                Clip(path, f"speech_commands {part}", WORD, word, f"speech commands {speaker}", path, 1.0)
            )
    for index, noise in enumerate(NOISES):
        plan.clips.append(
            Clip(
                f"speech_commands/_background_noise_/{noise}.wav",
                "speech_commands noise",
                NOISE,
                noise,
                "",
                f"background {index}",
                size.noise_seconds,
            )
        )
    for index in range(size.keyword_test):
        name = f"{_hash(seed, 'silence', index)[:8]}_nohash_0.wav"
        noise = NOISES[index % len(NOISES)]
        plan.clips.append(
            Clip(
                f"speech_commands_test/_silence_/{name}",
                "speech_commands test",
                NOISE,
                noise,
                "",
                f"silence {index}",
                1.0,
            )
        )
    plan.texts["speech_commands/validation_list.txt"] = "".join(sorted(validation))
    # The test clips lie in a folder of their own, so none of this folder's files is for testing.
    plan.texts["speech_commands/testing_list.txt"] = ""
