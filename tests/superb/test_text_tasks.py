"""ASR and SF: end to end on both engines, and their files and reader against s3prl's own modules."""

from __future__ import annotations

import io
import json

import pandas
import pytest
import soundfile
from small import superb_settings
from test_tasks import build, settings_for
from tiny_corpora import tone, write
from tiny_snips import SENTENCES, make_one_letter, make_snips

from speechft.console import Progress
from speechft.data.slots import characters
from speechft.errors import SpeechFTError
from speechft.files import read_json
from speechft.report.collect import read_metrics
from speechft.superb import compat
from speechft.superb.evaluate import evaluate
from speechft.superb.readers import asr, snips
from speechft.superb.readers.libriphone import find_utterances
from speechft.superb.tasks import get_task

BY_HAND = {
    # one of the four words is missed
    "asr": {"wer": 1 / 4},
    # the last of three utterances has two slots, of which one is found; five letters are values, two of them missed
    "sf": {
        "slot_type_f1": (1 + 1 + 2 / 3) / 3, "slot_value_cer": 2 / 5, "slot_value_wer": 1 / 4,
        "slot_edit_f1_full": 6 / 7, "slot_edit_f1_part": 6 / 7, "wer": 3 / 12,
    },
}  # fmt: skip
LINES = {
    "asr": [
        {"file": f"1-2-{number:04d}", "errors": errors, "length": length}
        for number, (errors, length) in enumerate([(0, 1), (0, 1), (1, 2)])
    ],
    "sf": [
        {"file": f"Brian-snips-test-{number}", "slot_type_f1": score, "slot_value_cer_errors": errors,
         "slot_value_cer_length": length}
        for number, (score, errors, length) in enumerate([(1.0, 0, 1), (1.0, 0, 1), (pytest.approx(2 / 3), 2, 3)])
    ],
}  # fmt: skip


@pytest.mark.parametrize("engine", ["fast", "s3prl"])
@pytest.mark.parametrize("task", ["asr", "sf"])
def test_end_to_end(task, engine, configuration, upstream, tmp_path):
    make_one_letter(tmp_path / "ls", tmp_path / "snips")
    cfg = configuration({"steps": 24, "eval_step": 8, "accumulate": 1, "lr": 3e-2}, tasks=[task])
    cfg["data"] = {**superb_settings()["data"], "librispeech": str(tmp_path / "ls"), "snips": str(tmp_path / "snips")}
    result = evaluate([upstream], engine=engine, cfg=cfg, progress=Progress(io.StringIO()))[0]
    assert (result["task"], result["engine"], result["steps"]) == (task, engine, 24)
    metric = result["metric"]
    # the best dev state is perfect, and the test set is scored with it: by fractions, also where s3prl says per cent
    assert result["dev"]["step"] in (8, 16, 24) and result["dev"][metric] == (1.0 if result["higher_better"] else 0.0)
    assert {name: result["metrics"][name] for name in BY_HAND[task]} == pytest.approx(BY_HAND[task])
    folder = tmp_path / "out" / "tiny"
    assert read_json(folder / f"{task}.json") == result
    lines = [json.loads(line) for line in (folder / f"{task}.utterances.jsonl").open()]
    assert sorted(lines, key=lambda line: line["file"]) == LINES[task]
    # the report finds every metric of its table again in the utterances
    scores = read_metrics(folder / f"{task}.json")
    assert [score.why for score in scores.values()] == [""] * {"asr": 1, "sf": 2}[task]
    assert all(score.value == pytest.approx(100 * BY_HAND[task][score.metric]) for score in scores.values())


def test_phones_and_characters_share_the_frames_of_a_corpus(configuration, upstream, tmp_path):
    cfg, quiet = configuration({"steps": 1}), Progress(io.StringIO())
    evaluate([upstream], ["pr"], cfg=cfg, progress=quiet)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    evaluate([upstream], ["asr"], cfg=cfg, progress=quiet)
    assert len(list((tmp_path / "store" / "frames").iterdir())) == 3
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")} == files


def test_what_is_missing_inside(tmp_path, corpora):
    (tmp_path / "train").mkdir()
    with pytest.raises(SpeechFTError, match=r"has no all\.iob\.snips\.txt, slots\.txt, valid, test \(Audio SNIPS"):
        get_task("sf").check({"snips": str(tmp_path)}, settings_for("sf"))
    with pytest.raises(SpeechFTError, match=r"test-other does not exist \(data.librispeech_test\)"):
        data = {**corpora.data, "librispeech_test": "test-other"}
        get_task("asr").check(data, settings_for("asr"))


def test_recipes_mask_as_the_official_ones(tmp_path, corpora):
    from s3prl.downstream.specaug import SpecAug

    recipes = superb_settings()["superb"]
    configs = {name: get_task(name).config(recipes[name], corpora.data, tmp_path) for name in ("pr", "asr", "sf")}
    assert "specaug" not in configs["pr"] and configs["asr"]["specaug"] == configs["sf"]["specaug"]
    masks = SpecAug(**configs["asr"]["specaug"])
    assert (masks.freq_mask.num_mask, list(masks.freq_mask.mask_width_range)) == (4, [0, 50])
    assert (masks.time_mask.num_mask, list(masks.time_mask.mask_width_range)) == (2, [0, 40])
    assert masks.time_warp.window == 5 and not masks.time_mask.adaptive
    assert "specaug" not in get_task("asr").config({**recipes["asr"], "specaug": None}, corpora.data, tmp_path)
    for config, part in ((configs["asr"], "modelrc"), (configs["sf"], "model")):
        model = config["downstream_expert"][part]
        assert model["project_dim"] == 1024
        assert (model["RNNs"]["dim"], model["RNNs"]["dropout"]) == ([1024, 1024], [0.2, 0.2])
        assert (model["RNNs"]["module"], model["RNNs"]["bidirection"]) == ("LSTM", True)
        assert config["runner"]["eval_step"] == 2000


# ---------------------------------------------------------------------------------------------------------------- ASR


def test_batches_of_characters(tmp_path, corpora):
    """s3prl halves full batches; what is left over stays whole; labels spell the transcript."""
    task = get_task("asr")
    expert = build(task, settings_for("asr", batch_size=5), corpora.data, tmp_path)
    split = task.split(expert, "train", crops=1)
    loader = task.loader(expert, "train")
    batch = task.batches(expert, split, loader)
    drawn = [batch([index]) for index in range(len(loader.dataset))]
    # 12 utterances: two full batches of 5, each halved, and 2 left
    assert [len(numbers) for numbers, _ in drawn] == [2, 3, 2, 3, 2]
    numbers = [number for some, _ in drawn for number in some]
    assert sorted(numbers) == list(range(12))
    lengths = [soundfile.info(split.items[number].path).frames for number in numbers]
    assert lengths == sorted(lengths, reverse=True) and lengths == [split.items[number].samples for number in numbers]
    sentences = {path.stem: text for path, text in find_utterances(corpora.data["librispeech"], ["train-clean-100"])}
    for some, (labels, names) in drawn:
        assert [split.items[number].path.stem for number in some] == names
        for label, name in zip(labels, names, strict=True):
            spelt = "".join(expert.dictionary[index] for index in label)
            assert spelt == sentences[name].replace(" ", "|") + "|</s>"
    item = split.items[3]
    assert (task.read(expert, "train", item) == soundfile.read(item.path, dtype="float32")[0]).all()
    assert len(task.split(expert, "dev", crops=1).items) == 4


def test_the_dictionary(tmp_path):
    """SUPERB's 28 where they suffice, else what s3prl's own builder makes of the corpus."""
    from s3prl.downstream.asr.dictionary import Dictionary

    characters = asr.vocabulary(["it's a dog", "THE CAT"])
    assert characters == asr.official_characters() and len(set(characters)) == 28
    assert sorted(characters) == sorted("ABCDEFGHIJKLMNOPQRSTUVWXYZ'|")
    loaded = Dictionary.load(str(asr.write_dictionary(tmp_path / "char.dict", characters)))
    assert loaded.symbols == ["<s>", "<pad>", "</s>", "<unk>", *characters] and loaded.bos() == 0
    sentences = ["ÉTÉ ÉTÉ", "BÉ A", "A"]
    built = Dictionary()
    spelt = [" ".join(sentence.replace(" ", "|")) + " |" for sentence in sentences]
    Dictionary.add_transcripts_to_dictionary(spelt, built, 1)
    built.finalize(padding_factor=1)
    assert asr.vocabulary(sentences) == built.symbols[built.nspecial :] == ["|", "É", "A", "T", "B"]


def test_lists_of_lengths(tmp_path):
    for name, seconds in (("1-2-0000", 0.1), ("1-2-0001", 0.2), ("1-2-0002", 0.1)):
        write(tmp_path / "dev" / "1" / "2" / f"{name}.flac", tone(300, seconds, 0))
    transcript = tmp_path / "dev" / "1" / "2" / "1-2.trans.txt"
    transcript.write_text("1-2-0001 A\n1-2-0002 B\n1-2-0000 C\n")
    audio = [path for path, _ in find_utterances(tmp_path, ["dev"])]
    table = pandas.read_csv(asr.write_lengths(tmp_path / "lists", tmp_path, "dev", audio))
    assert table["file_path"].tolist() == [f"dev/1/2/1-2-000{number}.flac" for number in (1, 0, 2)]
    assert table["length"].tolist() == [3200, 1600, 1600]
    transcript.rename(transcript.with_name("other.trans.txt"))
    with pytest.raises(SpeechFTError, match=r"1/2 has no 1-2\.trans\.txt; arrange the corpus as"):
        asr.write_lengths(tmp_path / "lists", tmp_path, "dev", audio)


# ----------------------------------------------------------------------------------------------------------------- SF


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """s3prl's encoder of characters and slots, from our file of characters."""
    compat.install()
    from s3prl.downstream.ctc.text import load_text_encoder

    folder = tmp_path_factory.mktemp("encoder")
    (folder / "characters.txt").write_text("\n".join(characters()) + "\n")
    (folder / "slots.txt").write_text("O\nalbum\nartist")
    return load_text_encoder("character-slot", str(folder / "characters.txt"), str(folder / "slots.txt"))


def test_characters_and_slots(encoder):
    # <pad>, <eos>, <unk>, 28 characters, two tokens for each of two slots
    assert encoder.vocab_size == 3 + 28 + 4
    assert encoder.decode(range(3, 31)) == " ABCDEFGHIJKLMNOPQRSTUVWXYZ'"


def test_labels_by_hand(tmp_path, encoder):
    make_snips(tmp_path)
    speakers = {"train_speakers": ["Joey"], "valid_speakers": ["Amy"], "test_speakers": ["Brian"]}
    dataset = snips.SnipsDataset(["valid"], encoder, 1, path=str(tmp_path), num_workers=0, **speakers)
    elements = {path.name: encoder.decode(labels) for path, labels in (dataset[i] for i in range(len(dataset)))}
    assert elements == {
        # punctuation is no word, though the last one takes the end of the sentence with it
        "Amy-snips-valid-0.wav": "PLAY B-artist CAB E-artist ",
        "Amy-snips-valid-1.wav": "ADD B-album BAD BAND E-album",
        "Amy-snips-valid-2.wav": "ADD B-artist CAB E-artist AND PLAY",
    }
    lengths = [len(labels) for _, labels in dataset.elements]
    assert lengths == sorted(lengths, reverse=True)
    bucket = snips.SnipsDataset(["train"], encoder, 3, path=str(tmp_path), **speakers)[3]
    assert [path.name for path, _ in bucket] == [f"Joey-snips-train-{number}.wav" for number in (0, 1, 2)]


def test_the_files_are_those_of_s3prls_newer_reader(tmp_path, encoder):
    from s3prl.dataio.corpus.snips import SNIPS

    make_snips(tmp_path)
    recipe = superb_settings()["superb"]["sf"]
    speakers = [recipe[f"{split}_speakers"] for split in ("train", "dev", "test")]
    corpus = SNIPS(str(tmp_path), *speakers)
    given = dict(zip(("train_speakers", "valid_speakers", "test_speakers"), speakers, strict=True))
    for folder, theirs in zip(("train", "valid", "test"), corpus.data_split, strict=True):
        ours = snips.SnipsDataset([folder], encoder, 1, path=str(tmp_path), **given)
        assert {path.stem for path, _ in ours.elements} == set(theirs)
        lines = snips.read_transcripts(tmp_path / "all.iob.snips.txt")
        assert all(" ".join(snips.slots_of(lines[name])) == theirs[name]["iob"] for name in theirs)
    assert len(corpus.train) == 2 * len(SENTENCES["train"])


def test_damaged_snips(tmp_path, encoder):
    make_snips(tmp_path)

    def read(speaker: str = "Ivy"):
        return snips.SnipsDataset(["train"], encoder, 1, path=str(tmp_path), train_speakers=[speaker])

    with pytest.raises(SpeechFTError, match=r"none of the 13 wav files of .*/train has a line .* among Zoe"):
        read("Zoe")
    transcripts = tmp_path / "all.iob.snips.txt"
    good = transcripts.read_text()
    transcripts.write_text(good.replace("artist", "singer"))
    with pytest.raises(SpeechFTError, match=r"slots\.txt lacks: singer; one slot a line"):
        read()
    transcripts.write_text(good.replace("\t", " "))
    with pytest.raises(SpeechFTError, match=r"a line of all\.iob\.snips\.txt has no slots: 'BOS PLAY BAD BAND EOS O O"):
        read()
    transcripts.unlink()
    with pytest.raises(SpeechFTError, match=r"all\.iob\.snips\.txt cannot be read"):
        read()


def test_lines_of_utterances_sum_to_the_scores():
    """Hypotheses of every kind: right, wrong value, wrong slot, a slot twice, none; a reference without slots."""
    from s3prl.downstream.ctc.metric import slot_type_f1, slot_value_cer

    truth = ["PLAY B-album BAD E-album", "B-album BAD E-album BY B-artist CAB E-artist", "ADD B-artist CAB E-artist",
             "B-album ONE E-album OR B-album TWO E-album", "PLAY B-album BAD E-album", "PLAY"]  # fmt: skip
    guess = ["PLAY B-album BAD E-album", "B-album BED E-album BY B-artist CABS E-artist", "ADD B-album CAB E-album",
             "B-album ONE E-album B-album TOO E-album", "PLAY BAD", "PLAY B-album X E-album"]  # fmt: skip
    records = {"filename": [*"abcdef"], "hypothesis": guess, "groundtruth": truth}
    lines = get_task("sf").utterances(records)
    assert [line["slot_value_cer_errors"] for line in lines] == [0, 1 + 1, 3, 0 + 1, 3, 0]
    assert sum(line["slot_type_f1"] for line in lines) / 6 == pytest.approx(slot_type_f1(guess, truth))
    total = sum(line["slot_value_cer_errors"] for line in lines) / sum(line["slot_value_cer_length"] for line in lines)
    assert total == pytest.approx(slot_value_cer(guess, truth))


def test_words_are_counted_as_by_the_expert(tmp_path, corpora):
    records = {
        "filenames": ["a", "b"], "pred_words": [["ONE", "TWO"], []], "target_words": [["TWO"], ["ONE", "TWO"]],
        "pred_tokens": ["O", ""], "target_tokens": ["O", "O"],
    }  # fmt: skip
    task = get_task("asr")
    lines = task.utterances(records)
    assert lines == [{"file": "a", "errors": 1, "length": 1}, {"file": "b", "errors": 2, "length": 2}]
    expert = build(task, settings_for("asr"), corpora.data, tmp_path)
    _, wer = expert._compute_metrics(*(records[f"{a}_{b}"] for a in ("pred", "target") for b in ("tokens", "words")))
    assert wer == pytest.approx(100 * sum(line["errors"] for line in lines) / sum(line["length"] for line in lines))
