"""The synthetic corpus: the same for a seed whatever the order, and in the layouts that SUPERB's tasks read."""

from __future__ import annotations

import hashlib
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from speechft.data.synthetic import corpus as corpora
from speechft.data.synthetic import espeak
from speechft.data.synthetic.corpus import SyntheticCorpus, corpus_folder, make_corpus
from speechft.data.synthetic.layouts import plan_corpus
from speechft.data.synthetic.sentences import KEYWORDS, UNKNOWN_WORDS, sentence, vocabulary
from speechft.data.synthetic.sizes import DEMO, PRETRAIN, TINY, Split
from speechft.data.synthetic.speakers import draw_speaker, generator
from speechft.errors import MissingExtraError, SpeechFTError, UsageError

pytest.importorskip("espeakng_loader", reason="the synthetic corpus needs the extra 'demo'")

MINIATURE = replace(
    TINY,
    name="miniature",
    train_other_500=Split(20, 3),
    dev_other=None,
    train_clean_100=None,
    dev_clean=None,
    test_clean=None,
    sid_speakers=2,
    sid_train=2,
    sid_dev=1,
    sid_test=1,
    keyword_train=0,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("synthetic")


@pytest.fixture(scope="module")
def tiny(root: Path) -> SyntheticCorpus:
    calls: list[tuple[int, int]] = []
    made = make_corpus("tiny", seed=0, root=root, jobs=2, progress=lambda done, total: calls.append((done, total)))
    total = sum(part["utterances"] for part in made.info["parts"].values())
    assert calls[-1] == (total, total)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    return made


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def transcripts(made: SyntheticCorpus) -> dict[str, str]:
    """Text by the flac's path relative to the LibriSpeech folder."""
    found = {}
    for path in made.librispeech.rglob("*.trans.txt"):
        for line in path.read_text().splitlines():
            name, text = line.split(" ", 1)
            found[(path.parent / f"{name}.flac").relative_to(made.librispeech).as_posix()] = text
    return found


class TestDeterminism:
    def test_any_number_of_jobs_gives_the_same_bytes(self, tmp_path: Path) -> None:
        one = make_corpus(MINIATURE, seed=3, root=tmp_path / "one", jobs=1)
        two = make_corpus(MINIATURE, seed=3, root=tmp_path / "two", jobs=2)
        assert digests(one.root) == digests(two.root)

    def test_another_seed_gives_other_speech(self, tmp_path: Path) -> None:
        small = replace(MINIATURE, train_other_500=Split(2, 1), sid_speakers=0)
        a = make_corpus(small, seed=0, root=tmp_path, jobs=1)
        b = make_corpus(small, seed=1, root=tmp_path, jobs=1)
        assert a.root != b.root
        assert transcripts(a) != transcripts(b)
        first, second = digests(a.librispeech), digests(b.librispeech)
        assert set(first) == set(second)
        assert not any(first[name] == second[name] for name in first if name.endswith(".flac"))

    def test_rendering_order_does_not_matter(self) -> None:
        from speechft.data.synthetic.render import render

        clips = plan_corpus(TINY, 0).clips
        chosen = [*clips[:6], *clips[-40:-34], clips[-1]]
        forward = [render(clip, 0) for clip in chosen]
        backward = [render(clip, 0) for clip in reversed(chosen)][::-1]
        assert all(np.array_equal(a, b) for a, b in zip(forward, backward, strict=True))

    def test_espeak_forgets_what_it_said(self) -> None:
        voices = [draw_speaker("order", index).voice() for index in range(3)]
        alone = [espeak.speak("a quiet morning", voice, rate=200, seed=4).samples for voice in voices]
        for index in (2, 0, 0, 1):
            espeak.speak("something else entirely", voices[0], rate=120, word_gap=5, seed=99)
            again = espeak.speak("a quiet morning", voices[index], rate=200, seed=4).samples
            assert np.array_equal(again, alone[index])
        assert not np.array_equal(alone[0][:5000], alone[1][:5000])


class TestCache:
    def test_the_second_call_only_opens(self, tiny: SyntheticCorpus, root: Path, monkeypatch) -> None:
        # No espeak-ng is needed to use a corpus that is there.
        monkeypatch.setattr(corpora, "_render_all", lambda *args: pytest.fail("made again"))
        start = time.perf_counter()
        again = make_corpus("tiny", seed=0, root=root)
        assert time.perf_counter() - start < 0.5
        assert again == tiny == SyntheticCorpus.open(tiny.root)

    def test_the_folder_names_size_seed_and_numbers(self, tiny: SyntheticCorpus) -> None:
        assert re.fullmatch(r"tiny-seed0-[0-9a-f]{8}", tiny.root.name)
        assert corpora.corpus_folder(TINY, 0) != corpora.corpus_folder(replace(TINY, sid_test=3), 0)

    def test_the_default_root_is_the_cache(self, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setenv("SPEECHFT_CACHE", str(tmp_path))
        assert corpora.corpus_folder("demo", 2).parent == tmp_path / "synthetic"

    def test_an_interrupted_making_leaves_nothing(self, tmp_path: Path) -> None:
        def interrupt(done: int, total: int) -> None:
            raise KeyboardInterrupt

        for jobs in (1, 2):
            with pytest.raises(KeyboardInterrupt):
                make_corpus(MINIATURE, root=tmp_path, jobs=jobs, progress=interrupt)
            assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []

    def test_two_at_once_make_it_once(self, tmp_path: Path) -> None:
        """The second waits for the first and opens what it made; leftovers of a killed process are cleared."""
        leftover = tmp_path / f".partial-{corpus_folder(MINIATURE, root=tmp_path).name}-aaaa"
        leftover.mkdir()
        calls: list[int] = []
        with ThreadPoolExecutor(2) as pool:
            futures = [
                pool.submit(
                    make_corpus, MINIATURE, root=tmp_path, jobs=1, progress=lambda done, total: calls.append(done)
                )
                for _ in range(2)
            ]
            roots = {future.result().root for future in futures}
        assert len(roots) == 1 and calls.count(1) <= 1
        assert not leftover.exists()

    def test_opening_what_is_no_corpus(self, tmp_path: Path) -> None:
        with pytest.raises(SpeechFTError, match="holds no synthetic corpus"):
            SyntheticCorpus.open(tmp_path)


class TestErrors:
    def test_unknown_size(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="tiny, smoke, demo, pretrain"):
            make_corpus("huge", root=tmp_path)

    def test_missing_package(self, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setattr(espeak, "_ESPEAK", None)
        monkeypatch.setitem(sys.modules, "espeakng_loader", None)
        with pytest.raises(MissingExtraError, match=r"pip install 'speechft\[demo\]'"):
            make_corpus(MINIATURE, root=tmp_path, jobs=1)
        assert list(tmp_path.iterdir()) == []

    def test_a_text_without_sound(self) -> None:
        with pytest.raises(SpeechFTError, match="said nothing"):
            espeak.speak("")

    def test_failing_status(self) -> None:
        with pytest.raises(SpeechFTError, match="status 2"):
            espeak._check(2, "setting the voice")

    def test_a_voice_that_is_not_taken(self, monkeypatch) -> None:
        espeak.speak("a")
        shared = espeak._shared()
        shared.reload()
        # The library answers 0 and keeps its voice: only the name gives it away.
        monkeypatch.setattr(shared.library, "espeak_SetVoiceByFile", lambda path: 0)
        with pytest.raises(SpeechFTError, match="kept another voice"):
            shared.set_voice(("roughness 2",))


class TestLibriSpeech:
    SPLITS = ("train-other-500", "dev-other", "train-clean-100", "dev-clean", "test-clean")

    def test_transcripts_match_the_files(self, tiny: SyntheticCorpus) -> None:
        texts = transcripts(tiny)
        files = {path.relative_to(tiny.librispeech).as_posix() for path in tiny.librispeech.rglob("*.flac")}
        assert files == set(texts)
        for path, text in texts.items():
            split, speaker, chapter, name = path.split("/")
            assert split in self.SPLITS
            assert re.fullmatch(rf"{speaker}-{chapter}-\d{{4}}\.flac", name)
            assert text == text.upper()
            assert 3 <= len(text.split()) <= 8

    def test_amounts(self, tiny: SyntheticCorpus) -> None:
        for split, amount in TINY.splits().items():
            assert len(list((tiny.librispeech / split).rglob("*.flac"))) == amount.utterances
            assert len(list((tiny.librispeech / split).iterdir())) == amount.speakers
            part = tiny.info["parts"][split]
            assert (part["utterances"], part["speakers"]) == (amount.utterances, amount.speakers)

    def test_speakers_of_the_splits_are_disjoint(self, tiny: SyntheticCorpus) -> None:
        speakers = [path.name for split in self.SPLITS for path in (tiny.librispeech / split).iterdir()]
        assert len(speakers) == len(set(speakers))
        for size in (DEMO, PRETRAIN):
            parts: dict[str, set[str]] = {}
            for clip in plan_corpus(size, 0).clips:
                if clip.path.startswith("librispeech"):
                    parts.setdefault(clip.part, set()).add(clip.speaker)
            assert sum(map(len, parts.values())) == len(set.union(*parts.values()))

    def test_audio(self, tiny: SyntheticCorpus) -> None:
        import soundfile

        lengths = []
        for path in sorted(tiny.librispeech.rglob("*.flac")):
            samples, rate = soundfile.read(str(path), dtype="int16")
            header = soundfile.info(str(path))
            assert (rate, header.channels, header.subtype) == (16000, 1, "PCM_16")
            assert 0.5 < samples.size / rate < 6.0
            assert 200 < np.abs(samples.astype(int)).max() < 32767
            lengths.append(samples.size / rate)
        assert 1.2 < float(np.mean(lengths)) < 3.0
        counted = sum(tiny.info["parts"][split]["seconds"] for split in self.SPLITS)
        assert counted == pytest.approx(sum(lengths), abs=0.1)

    def test_our_own_reader_takes_it(self, tiny: SyntheticCorpus) -> None:
        from speechft.data.audio import audio_info, load_audio

        path = next(tiny.librispeech.rglob("*.flac"))
        assert load_audio(path).shape == (audio_info(path).samples,)


class TestLexicon:
    def test_every_word_and_every_phone_is_listed(self, tiny: SyntheticCorpus) -> None:
        lexicon = dict(line.split("\t") for line in tiny.lexicon.read_text().splitlines())
        phones = tiny.phones.read_text().split("\n")[:-1]
        assert {word for text in transcripts(tiny).values() for word in text.split()} <= set(lexicon)
        assert {word.upper() for word in (*KEYWORDS, *UNKNOWN_WORDS)} <= set(lexicon)
        assert {phone for spelled in lexicon.values() for phone in spelled.split(" ")} == set(phones)
        assert len(phones) == len(set(phones))
        assert 35 <= len(phones) <= 60
        assert all(re.fullmatch(r"[A-Z0-9]+", phone) for phone in phones)

    def test_a_few_words(self, tiny: SyntheticCorpus) -> None:
        lexicon = dict(line.split("\t") for line in tiny.lexicon.read_text().splitlines())
        assert lexicon["STOP"] == "S T AA P"
        assert lexicon["SEVEN"].split()[:3] == ["S", "EH", "V"]
        assert lexicon["BEACH"] == "B IY CH"

    def test_sentences_keep_to_the_vocabulary(self) -> None:
        rng = generator("test")
        words = vocabulary()
        for _ in range(300):
            text = sentence(rng, 4, 12)
            assert 4 <= len(text.split()) <= 12
            assert set(text.split()) <= words


class TestVoxCeleb1:
    def test_the_list_is_complete(self, tiny: SyntheticCorpus) -> None:
        assert tiny.voxceleb1 is not None
        assert tiny.iden_split is not None
        listed = [line.split(" ") for line in tiny.iden_split.read_text().splitlines()]
        wav = tiny.voxceleb1 / "dev" / "wav"
        assert {name for _, name in listed} == {path.relative_to(wav).as_posix() for path in wav.rglob("*.wav")}
        for code, wanted in (("1", TINY.sid_train), ("2", TINY.sid_dev), ("3", TINY.sid_test)):
            assert sum(c == code for c, _ in listed) == wanted * TINY.sid_speakers
        assert all(re.fullmatch(r"id1\d{4}/[^/]{11}/\d{5}\.wav", name) for _, name in listed)

    def test_no_session_spans_two_parts(self) -> None:
        sessions: dict[str, set[str]] = {}
        speakers: dict[str, set[str]] = {}
        for line in plan_corpus(DEMO, 0).texts["iden_split.txt"].splitlines():
            code, name = line.split(" ")
            sessions.setdefault(name.split("/")[1], set()).add(code)
            speakers.setdefault(name.split("/")[0], set()).add(code)
        assert all(len(codes) == 1 for codes in sessions.values())
        assert all(codes == {"1", "2", "3"} for codes in speakers.values())
        assert len(speakers) == DEMO.sid_speakers


def s3prl_portion(name: str) -> str:
    """The rule by which s3prl splits Speech Commands, from the data set's own documentation."""
    speaker = re.sub(r"_nohash_.*$", "", name)
    number = int(hashlib.sha1(speaker.encode("utf-8")).hexdigest(), 16) % 2**27
    percentage = number * (100.0 / (2**27 - 1))
    return "dev" if percentage < 10 else "nothing" if percentage < 20 else "train"


class TestSpeechCommands:
    @pytest.mark.parametrize("size", [TINY, DEMO])
    def test_amounts_under_s3prl_s_own_rule(self, size) -> None:
        counts: dict[tuple[str, str], int] = {}
        paths = [clip.path for clip in plan_corpus(size, 0).clips if clip.path.startswith("speech_commands/")]
        assert len(paths) == len(set(paths))
        for path in paths:
            _, word, name = path.split("/")
            if word != "_background_noise_":
                assert re.fullmatch(r"[0-9a-f]{8}_nohash_\d+\.wav", name)
                key = (word if word in KEYWORDS else "_unknown_", s3prl_portion(name))
                counts[key] = counts.get(key, 0) + 1
        wanted = {(word, "train"): size.keyword_train for word in KEYWORDS}
        wanted |= {(word, "dev"): size.keyword_dev for word in KEYWORDS}
        wanted |= {("_unknown_", "train"): size.unknown_train, ("_unknown_", "dev"): size.unknown_dev}
        assert counts == wanted

    def test_files(self, tiny: SyntheticCorpus) -> None:
        import soundfile

        assert tiny.speech_commands is not None
        assert tiny.speech_commands_test is not None
        folders = {path.name for path in tiny.speech_commands_test.iterdir()}
        assert folders == {*KEYWORDS, "_unknown_", "_silence_"}
        for folder in folders:
            assert len(list((tiny.speech_commands_test / folder).glob("*.wav"))) == TINY.keyword_test
        background = list((tiny.speech_commands / "_background_noise_").glob("*.wav"))
        assert len(background) >= 4
        for path in background:
            assert soundfile.info(str(path)).duration == TINY.noise_seconds
        clips = [*tiny.speech_commands.glob("[a-z]*/*.wav"), *tiny.speech_commands_test.rglob("*.wav")]
        for path in clips:
            header = soundfile.info(str(path))
            assert (header.frames, header.samplerate, header.channels) == (16000, 16000, 1)

    def test_lists(self, tiny: SyntheticCorpus) -> None:
        assert tiny.speech_commands is not None
        listed = (tiny.speech_commands / "validation_list.txt").read_text().split()
        there = {
            path.relative_to(tiny.speech_commands).as_posix() for path in tiny.speech_commands.glob("[a-z]*/*.wav")
        }
        assert set(listed) == {path for path in there if s3prl_portion(path.split("/")[1]) == "dev"}
        assert (tiny.speech_commands / "testing_list.txt").read_text() == ""

    def test_test_speakers_are_not_in_training(self) -> None:
        speakers: dict[bool, set[str]] = {True: set(), False: set()}
        for clip in plan_corpus(DEMO, 0).clips:
            if clip.kind == "word":
                speakers[clip.part.endswith("test")].add(clip.speaker)
        assert not speakers[True] & speakers[False]


def test_a_corpus_to_pretrain_on_has_no_tasks_and_its_making_is_told(tmp_path: Path, monkeypatch) -> None:
    shown: list[tuple[int, str]] = []

    @contextmanager
    def counter(title: str, total: int):
        assert (title, total) == ("making the synthetic corpus", 100)
        yield lambda done, note: shown.append((done, note))

    monkeypatch.setattr(corpora, "counter", counter)
    small = replace(PRETRAIN, train_other_500=Split(4, 2), dev_other=Split(2, 1))
    made = make_corpus(small, root=tmp_path, jobs=1)
    assert shown[-1] == (100, "%") and shown == sorted(shown)
    assert made.voxceleb1 is made.iden_split is made.speech_commands is made.speech_commands_test is None
    assert {path.name for path in made.librispeech.iterdir()} == {"train-other-500", "dev-other"}
    assert all(4 <= len(text.split()) <= 12 for text in transcripts(made).values())
