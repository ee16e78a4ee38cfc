"""Tiny corpora of IC, ER and QbE in the official layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from tiny_corpora import tone, write

INTENTS = [
    ("activate", "lights", "kitchen"), ("activate", "music", "none"), ("deactivate", "lights", "kitchen"),
    ("bring", "newspaper", "none"),
]  # fmt: skip


def make_fluent_commands(root: Path) -> None:
    """data/*.csv as in the release: an unnamed index column, `path` relative to the root; pitch tells the intent."""
    (root / "data").mkdir(parents=True)
    generator = np.random.default_rng(2)
    for table, speakers in (("train", 4), ("valid", 1), ("test", 2)):
        lines = [",path,speakerId,transcription,action,object,location"]
        for speaker in range(speakers):
            for number, (action, thing, place) in enumerate(INTENTS):
                name = f"wavs/speakers/{table}{speaker}/{table}{speaker}{number}-aa.wav"
                wave = tone(300 * (number + 1) + 20 * speaker, generator.uniform(0.2, 0.6), 10 * speaker + number)
                write(root / name, wave)
                lines.append(f'{len(lines) - 1},{name},{table}{speaker},"Say, it",{action},{thing},{place}')
        (root / "data" / f"{table}_data.csv").write_text("\n".join(lines) + "\n")


EMOTIONS = ("neu", "hap", "exc", "ang", "sad", "fru", "xxx")


def make_iemocap(root: Path) -> None:
    """Sessions, dialogues and EmoEvaluation tables as in IEMOCAP_full_release; the last two labels do not count."""
    generator = np.random.default_rng(3)
    for session in range(1, 6):
        labels = root / f"Session{session}" / "dialog" / "EmoEvaluation"
        labels.mkdir(parents=True)
        for dialogue in (f"Ses0{session}F_impro01", f"Ses0{session}M_script01_1"):
            lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
            for number, emotion in enumerate(EMOTIONS):
                name = f"{dialogue}_{'FM'[number % 2]}{number:03d}"
                hertz = 300 * (1 + number) + 10 * session
                wave = tone(hertz, generator.uniform(0.2, 0.5), 100 * session + number)
                write(root / f"Session{session}" / "sentences" / "wav" / dialogue / f"{name}.wav", wave)
                lines += [f"[{number}.0000 - {number}.5000]\t{name}\t{emotion}\t[2.5000, 2.5000, 2.5000]", ""]
                lines += ["C-E2:\tNeutral;\t()", "A-E3:\tval 3; act 2; dom  2;\t()", ""]
            (labels / f"{dialogue}.txt").write_text("\n".join(lines))
        (labels / f"._Ses0{session}F_impro01.txt").write_bytes(b"\x00\x05\x16\x07\xff")


WORDS = (300, 340, 380, 430, 490)
TIMES = {"quesst14_00001": [0, 1, 2], "quesst14_00002": [3, 4, 0], "quesst14_00003": [2, 3, 1],
         "quesst14_00004": [4, 2, 3], "quesst14_00005": [1, 0, 4], "quesst14_00006": [2, 2, 3]}  # fmt: skip
"""Document -> its words. The last document and each set's last query are not English."""


def make_quesst(root: Path) -> None:
    """8 kHz audio, lists and ground truth as in quesst14Database; query N says word N, the fourth one too shortly."""
    scoring = root / "scoring"
    lists: dict[str, list[str]] = {"utterances": [], "dev": [], "eval": []}

    def speak(kind: str, path: str, words: list[int], seconds: float, seed: int, language: str = "nnenglish") -> None:
        voice = 1 + 0.004 * (seed % 13)  # so that not every layer finds everything
        waves = [tone(WORDS[word] * voice, seconds, seed + place) for place, word in enumerate(words)]
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / path, np.concatenate(waves)[::2], 8000)
        lists[kind].append(f"quesst14Database/{path} {language}")

    for number, (name, words) in enumerate(TIMES.items()):
        language = "albanian" if number == len(TIMES) - 1 else "nnenglish"
        speak("utterances", f"Audio/{name}.wav", words, 0.3, 10 * number, language)
    for split in ("dev", "eval"):
        terms, rttm = [], ["SPKR-INFO quesst14_00001 1 <NA> <NA> <NA> unknown speaker1 <NA>"]
        folder = scoring / f"groundtruth_quesst14_{split}"
        folder.mkdir(parents=True)
        for word in range(len(WORDS)):
            name = f"quesst14_{split}_{word + 1:04d}"
            language = "albanian" if word == len(WORDS) - 1 else "nnenglish"
            seconds = 0.08 if word == 3 else 0.25
            speak(split, f"{split}_queries/{name}.wav", [word], seconds, 7 * word + len(split), language)
            terms.append(f'<term termid="{name}"><termtext>{name}</termtext></term>')
            for document, words in TIMES.items():
                if word in words:
                    rttm.append(f"LEXEME {document} 1 0.00 0.90 {name} lex speaker1 0.5")
        terms.append('<term termid="quesst14_never"><termtext>quesst14_never</termtext></term>')
        rttm.append("LEXEME quesst14_00001 1 0.00 0.90 NO_KEYWORD lex speaker1 0.5")
        (folder / f"quesst14_{split}.rttm").write_text("\n".join(rttm) + "\n")
        (folder / f"quesst14_{split}.tlist.xml").write_text(f"<termlist>{''.join(terms)}</termlist>")
        excerpts = "".join(f'<excerpt audio_filename="Audio/{name}.wav" channel="1" tbeg="0"/>' for name in TIMES)
        (folder / "quesst14.ecf.xml").write_text(f"<ecf>{excerpts}</ecf>")
    for kind, lines in lists.items():
        (scoring / f"language_key_{kind}.lst").write_text("\n".join(lines) + "\n")
    (scoring / "score-TWV-Cnxe.sh").write_text("#!/bin/bash\nP_target=0.2\nC_fa=1\nC_miss=2\n")
