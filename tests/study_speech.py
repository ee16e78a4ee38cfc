"""Small tables of made-up speech, in the columns that the study reads."""

import numpy as np
import soundfile

from speechft.study.plan import Sizes
from speechft.study.probes import Tables

SIZES = Sizes(pr=(3, 2, 2), sid_speakers=6, sid=(1, 1, 2), sid_seconds=0.5, digits=(2, 1, 2), asv=(1, 2))
_TEXTS = ("TEA FOR TWO", "TWO TEAS", "FOUR TEAS", "TEA AT TEN", "TEN TEAS")
_PHONES = ("T IY F AO R T UW", "T UW T IY Z", "F AO R T IY Z", "T IY AE T T EH N", "T EH N T IY Z")


def make_tables(folder):
    """Tones with noise, a pitch for each speaker."""
    generator = np.random.default_rng(0)

    def write(table, name, seconds, pitch):
        path = folder / table / "audio" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        time = np.arange(round(seconds * 16_000)) / 16_000
        wave = 0.3 * np.sin(2 * np.pi * pitch * time) + 0.02 * generator.standard_normal(len(time))
        soundfile.write(path, wave.astype(np.float32), 16_000)
        return f"audio/{name}.wav"

    rows = ["id\tpath\tseconds\tspeaker\tsplit\ttext\tphones"]
    for speaker in range(30):
        for turn in range(5):
            name = f"s{speaker:03d}t{turn}"
            path = write("speechocean762", name, 1.0, 100 + 10 * speaker)
            split = ("train", "train", "train", "dev", "test")[turn]
            rows.append(f"{name}\t{path}\t1.0\tsp{speaker:03d}\t{split}\t{_TEXTS[turn]}\t{_PHONES[turn]}")
    (folder / "speechocean762" / "utterances.tsv").write_text("\n".join(rows) + "\n")

    rows = ["id\tpath\tseconds\tspeaker\tpart"]
    for speaker in range(8):
        path = write("librispeech_mini", f"long{speaker}", 3.5, 120 + 15 * speaker)
        rows.append(f"long{speaker}\t{path}\t3.5\t{speaker}\ttrain-clean-100")
    for speaker in range(2):
        for turn in range(3):
            path = write("librispeech_mini", f"other{speaker}-{turn}", 1.5, 150 + 60 * speaker)
            rows.append(f"other{speaker}-{turn}\t{path}\t1.5\t{100 + speaker}\ttest-other")
    (folder / "librispeech_mini" / "utterances.tsv").write_text("\n".join(rows) + "\n")

    rows = ["id\tpath\tseconds\tspeaker\tdigit\tsplit"]
    for speaker in range(3):
        for digit in range(10):
            for turn in range(3):
                name = f"{digit}_{speaker}_{turn}"
                path = write("fsdd", name, 0.4, 200 + 40 * digit + speaker)
                rows.append(f"{name}\t{path}\t0.4\tspeaker{speaker}\t{digit}\ttrain")
    (folder / "fsdd" / "utterances.tsv").write_text("\n".join(rows) + "\n")
    return Tables.under(folder)
