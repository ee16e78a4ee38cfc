"""The reader against its definition, through s3prl's own loader functions."""

from __future__ import annotations

import pytest
from tiny_corpora import LEXICON, make_librispeech, tone, write

from speechft.data.lexicon import pronounce, read_lexicon
from speechft.errors import SpeechFTError
from speechft.superb.readers.libriphone import (
    LibriPhoneDataset,
    find_utterances,
    official_phones,
    read_phones,
    vocabulary,
)


class Tokenizer:
    """s3prl's word encoder, for the phones of the tiny lexicon (ids follow pad, eos, unk)."""

    unk_idx = 2

    def vocab_to_idx(self, phone: str) -> int:
        return {"AE1": 3, "B": 4, "D": 5, "K": 6}.get(phone, self.unk_idx)

    def encode(self, text: str) -> list[int]:
        return [*map(self.vocab_to_idx, text.split(" ")), 1]


@pytest.fixture
def corpus(tmp_path):
    for number, sentence in enumerate(["BAD CAB", "ADD", "DAB BAD ADD", "BACK"]):
        write(tmp_path / "dev" / "1" / "2" / f"1-2-{number:04d}.flac", tone(300, 0.1, number))
        with (tmp_path / "dev" / "1" / "2" / "1-2.trans.txt").open("a") as file:
            file.write(f"1-2-{number:04d} {sentence}\n")
    (tmp_path / "lexicon.txt").write_text("".join(f"{w}\t{p}\n" for w, p in LEXICON.items()) + "BAD  D AE1 D\n")
    return tmp_path


def test_labels_by_hand(corpus):
    dataset = LibriPhoneDataset(["dev"], Tokenizer(), 1, path=str(corpus), lexicon=[str(corpus / "lexicon.txt")])
    # longest label first; BAD has two pronunciations, the first counts; 1 ends every sequence
    assert [(path.stem, labels) for path, labels in (dataset[i] for i in range(len(dataset)))] == [
        ("1-2-0002", [5, 3, 4, 4, 3, 5, 3, 5, 1]),
        ("1-2-0000", [4, 3, 5, 6, 3, 4, 1]),
        ("1-2-0003", [4, 3, 6, 1]),
        ("1-2-0001", [3, 5, 1]),
    ]


def test_buckets_are_neighbours_and_never_short(corpus):
    dataset = LibriPhoneDataset("dev", Tokenizer(), 3, path=str(corpus), lexicon=[str(corpus / "lexicon.txt")])
    names = [[path.stem[-1] for path, _ in dataset[index]] for index in range(len(dataset))]
    assert names == [["2", "0", "3"], ["0", "3", "1"], ["0", "3", "1"], ["0", "3", "1"]]
    larger = LibriPhoneDataset("dev", Tokenizer(), 9, path=str(corpus), lexicon=str(corpus / "lexicon.txt"))
    assert len(larger[3]) == 4


def test_a_word_outside_the_lexicon_is_named(corpus):
    with (corpus / "dev" / "1" / "2" / "1-2.trans.txt").open("a") as file:
        file.write("1-2-0000 ONE TWO THREE FOUR FIVE SIX BAD\n")
    with pytest.raises(SpeechFTError, match=r"6 words of .* not in the lexicon: FIVE, FOUR, ONE, SIX, THREE \.\.\.;"):
        LibriPhoneDataset(["dev"], Tokenizer(), 1, path=str(corpus), lexicon=[str(corpus / "lexicon.txt")])


def test_a_phone_outside_the_vocabulary_is_named(corpus):
    (corpus / "more.txt").write_text("BAD B AH7 D\n")
    lexicon = [str(corpus / "more.txt"), str(corpus / "lexicon.txt")]
    with pytest.raises(SpeechFTError, match="outside the vocabulary: AH7"):
        LibriPhoneDataset(["dev"], Tokenizer(), 1, path=str(corpus), lexicon=lexicon)


def test_an_empty_transcript_is_not_scored(corpus):
    path = next(corpus.glob("dev/*/*/*.trans.txt"))
    names = [line.split()[0] for line in path.read_text().splitlines()]
    path.write_text("".join(f"{line} \n" if line == names[-1] else f"{line} HELLO\n" for line in names))
    with pytest.raises(SpeechFTError, match=rf"utterance {names[-1]} has an empty transcript \(.*\.trans\.txt\)"):
        find_utterances(corpus, ["dev"])


def test_damaged_corpora(corpus):
    with pytest.raises(SpeechFTError, match=r"no \*\.trans\.txt"):
        find_utterances(corpus, ["nothing"])
    (corpus / "dev" / "1" / "2" / "1-2-0003.flac").unlink()
    with pytest.raises(SpeechFTError, match="1-2-0003, whose audio is missing"):
        find_utterances(corpus, ["dev"])


def test_lexicon_and_vocabulary(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text("a  AH0\n\nHELLO\tHH AH0 L OW1\nHELLO HH EH0 L OW1\n")
    lexicon = read_lexicon([path])
    assert pronounce("Hello a", lexicon) == ["HH", "AH0", "L", "OW1", "AH0"]
    phones = official_phones()
    assert len(phones) == len(set(phones)) == 71
    assert phones[:4] == ["SIL", "SPN", "AA0", "AA1"] and phones[-1] == "ZH"
    assert vocabulary(lexicon) == phones
    assert vocabulary({"X": ["b", "a"], "Y": ["a"]}) == ["a", "b"]
    path.write_text("WORD\n")
    with pytest.raises(SpeechFTError, match="line 1: WORD has no phones"):
        read_lexicon([path])
    (tmp_path / "phones.txt").write_text("a\nb\na\n")
    with pytest.raises(SpeechFTError, match="twice"):
        read_phones(tmp_path / "phones.txt")


def test_through_s3prl(tmp_path):
    """s3prl's own encoder and collate: labels decode to the phones of the sentence."""
    from speechft.superb import compat
    from speechft.superb.tasks import get_task

    compat.install()
    make_librispeech(tmp_path)
    vocab = tmp_path / "phones.txt"
    vocab.write_text("\n".join(official_phones()) + "\n")
    with get_task("pr").environment(tmp_path):
        from s3prl.downstream.ctc.data import load_dataset
        from s3prl.downstream.ctc.text import load_text_encoder

        tokenizer = load_text_encoder("word", str(vocab))
        assert tokenizer.vocab_size == 74
        corpus = {
            "name": "libriphone", "path": str(tmp_path), "lexicon": [str(tmp_path / "lexicon.txt")], "num_workers": 0,
            "train": ["train-clean-100"], "dev": ["dev-clean"], "bucketing": True, "batch_size": 4,
        }  # fmt: skip
        loader = load_dataset("dev", tokenizer, corpus)
        sentences = {path.stem: text for path, text in find_utterances(tmp_path, ["dev-clean"])}
        seen = {}
        for _, labels, names in loader:
            seen[names[0]] = tokenizer.decode(labels[0].tolist())
        lexicon = read_lexicon([tmp_path / "lexicon.txt"])
        assert seen == {name: " ".join(pronounce(text, lexicon)) for name, text in sentences.items()}
