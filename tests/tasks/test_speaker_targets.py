"""Targets that tell speakers apart, and targets of the waveform as it is heard."""

import numpy as np
import pytest
import soundfile
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from speechft.data.corpora import load_cuts
from speechft.data.loader import Batch, read_cut
from speechft.errors import UsageError
from speechft.tasks import masked_prediction
from speechft.tasks.build import build_task
from speechft.tasks.projections import Discriminant
from speechft.tasks.targets import make_targets
from speechft.upstreams.load import load_upstream

BOOK = {
    "features": "logmel", "normalize": True, "context": None, "statistics": ["mean", "std"], "discriminate": 2,
    "regress": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def speakers(tmp_path_factory):
    """Four utterances each of three speakers, and one of a fourth. Speakers differ by a weak line of their own; what
    changes from one utterance to the next is a strong line anywhere."""
    folder, generator = tmp_path_factory.mktemp("speakers"), np.random.default_rng(0)
    rows = ["id\tpath\tspeaker"]
    time = np.arange(12_000) / 16_000
    for speaker, own in enumerate((400, 900, 1600, 2500)):
        for number in range(4 if speaker < 3 else 1):
            other = 3000 + 400 * int(generator.integers(10))
            wave = 0.05 * np.sin(2 * np.pi * own * time) + 0.2 * np.sin(2 * np.pi * other * time)
            wave += 0.01 * generator.standard_normal(len(time))
            soundfile.write(folder / f"{speaker}-{number}.wav", wave, 16_000)
            rows.append(f"{speaker}-{number}\t{speaker}-{number}.wav\ts{speaker}")
    (folder / "table.tsv").write_text("\n".join(rows) + "\n")
    return load_cuts([{"kind": "tsv", "path": str(folder / "table.tsv"), "text": None}])[0]


def test_discriminant_of_classes_is_scikit_learns():
    generator = np.random.default_rng(0)
    classes = np.arange(6).repeat(50)
    features = generator.standard_normal((6, 8))[classes] + generator.standard_normal((300, 8)) @ np.diag(range(1, 9))
    theirs = LinearDiscriminantAnalysis(solver="eigen", n_components=4).fit(features, classes).transform(features)
    ours = Discriminant.fit(features, classes, 4, ridge=0.0)(features)
    for column in range(4):
        assert abs(np.corrcoef(theirs[:, column], ours[:, column])[0, 1]) > 1 - 1e-6


def test_classes_of_speakers_tell_speakers_apart(speakers, tmp_path):
    """Utterances of one speaker lie together, far from the others; by utterances as classes much less so."""

    def ratio(book):
        targets = make_targets(speakers, [book], 0, cache=tmp_path)[0]
        own = np.array([[targets[f"{speaker}-{number}"][0] for number in range(4)] for speaker in range(3)])
        means = own.astype(float).mean(1)
        within = np.linalg.norm(own - means[:, None], axis=2).mean()
        return np.linalg.norm(means[:, None] - means[None], axis=2).sum() / 6 / within

    by_speakers, by_utterances = ratio({**BOOK, "classes": "speakers"}), ratio(BOOK)
    assert by_speakers > 10 and by_speakers > 2 * by_utterances, (by_speakers, by_utterances)


def test_it_is_fitted_to_several_utterances_as_recorded_of_one_corpus(speakers, monkeypatch, tmp_path):
    from lhotse import CutSet

    from speechft.tasks import targets

    faster = [cut.perturb_speed(1.1) for cut in speakers]
    seen, fit = [], Discriminant.fit

    def fitted(features, classes, *rest):
        seen.append(np.bincount(classes).tolist())
        return fit(features, classes, *rest)

    monkeypatch.setattr(targets.Discriminant, "fit", fitted)
    book = {**BOOK, "classes": "speakers"}
    make_targets(CutSet.from_cuts([*speakers, *faster]), [book, {**book, "fitted_to": "1-"}], 0, cache=tmp_path)
    assert seen == [[4, 4, 4], [4]]
    with pytest.raises(UsageError, match="no cut's id begins so"):
        make_targets(speakers, [{**book, "fitted_to": "x"}], 0, cache=tmp_path)


def test_nobody_with_two_utterances_is_one_line(speakers, tmp_path):
    single = speakers.filter(lambda cut: cut.id.endswith("-0"))
    with pytest.raises(UsageError, match="no speaker has two utterances"):
        make_targets(single, [{**BOOK, "classes": "speakers"}], 0, cache=tmp_path)


def test_heard_vectors_are_those_of_what_is_heard(speakers, tmp_path):
    """Of the waveforms as they are, what is kept for cuts; of others, others. The fitted map is kept, too."""
    book = {**BOOK, "classes": "speakers"}
    kept = make_targets(speakers, [book], 0, cache=tmp_path / "kept")[0]
    heard = make_targets(speakers, [{**book, "heard": True}], 0, cache=tmp_path)[0]
    waves = [read_cut(cut) for cut in speakers]
    assert np.allclose(heard(waves), [kept[cut.id] for cut in speakers], atol=2e-2)
    changed = heard([torch.diff(wave) for wave in waves])
    assert not np.allclose(changed, heard(waves), atol=0.5)
    frames = {"features": "logmel", "whiten": 5, "regress": True}
    kept = make_targets(speakers, [frames], 0, cache=tmp_path / "kept")[0]
    heard_frames = make_targets(speakers, [{**frames, "heard": True}], 0, cache=tmp_path / "frames")[0](waves)
    for cut, own in zip(speakers, heard_frames, strict=True):
        assert own.shape == kept[cut.id].shape and np.allclose(own, kept[cut.id], atol=2e-2)
    again = make_targets(speakers, [{**book, "heard": True}], 0, cache=tmp_path)[0]
    assert np.array_equal(again(waves), heard(waves)) and len(list(tmp_path.glob("*-turn.npz"))) == 1


def _asked(book, speakers, monkeypatch, folder):
    """The loss of heads that answer 0, where every waveform is changed before it is heard: the mean square of what is
    asked; the vectors that belong to the changed waveforms; and the frames of each."""
    task = build_task({"kind": "masked_prediction", "codebooks": [{**book, "layer": 1}], "channel_probability": 1.0,
                       "unmasked_weight": 0.0})  # fmt: skip
    upstream = load_upstream("hubert_nano_random")
    task.prepare(upstream, speakers, None, folder)
    torch.nn.init.zeros_(task.heads[0].weight)
    torch.nn.init.zeros_(task.heads[0].bias)
    task._spans = lambda frames, length: torch.ones(len(frames), length, dtype=torch.bool)
    monkeypatch.setattr(masked_prediction, "coloured", lambda waves, *rest: [torch.diff(wave) for wave in waves])
    waves = [read_cut(cut) for cut in speakers]
    loss = float(task.step(upstream, Batch(waves, list(speakers)))[0].detach())
    changed = [torch.diff(wave) for wave in waves]
    vectors = make_targets(speakers, [book], 0, upstream.first_centre)[0](changed)
    return loss, vectors, upstream.frame_counts(torch.tensor([len(wave) for wave in changed])).tolist()


def test_the_loss_asks_for_what_is_heard(speakers, monkeypatch, tmp_path):
    loss, vectors, _ = _asked({**BOOK, "classes": "speakers", "heard": True}, speakers, monkeypatch, tmp_path)
    assert loss == pytest.approx(np.square(vectors).mean(), rel=1e-4)


def test_the_loss_asks_for_frames_as_they_are_heard(speakers, monkeypatch, tmp_path):
    book = {"features": "logmel", "whiten": 4, "regress": True, "heard": True}
    loss, vectors, counts = _asked(book, speakers, monkeypatch, tmp_path)
    squares = [np.square(own[:count]) for own, count in zip(vectors, counts, strict=True)]
    assert loss == pytest.approx(np.concatenate(squares).mean(), rel=1e-4)


def test_books_of_the_same_features_share_them(speakers, tmp_path):
    books = [{**BOOK, "classes": "speakers", "heard": True, "channels": channels} for channels in (0.0, 1.0)]
    books.append({**books[0], "statistics": ["mean"]})
    heard, measured = make_targets(speakers, books, 0, cache=tmp_path), {}
    waves = [read_cut(cut) for cut in speakers]
    assert all(np.array_equal(one(waves, measured), one(waves)) for one in heard)
    assert sorted(items[0][0].shape[1] for items in measured.values()) == [80, 160]


@pytest.mark.parametrize("wrong", [
    {**BOOK, "classes": "voices"}, {**BOOK, "heard": 1}, {**BOOK, "context": 0.2, "classes": "speakers"},
    {"features": "logmel", "context": None, "regress": True, "whiten": 2, "classes": "speakers"},
    {"features": "logmel", "clusters": 3, "heard": True}, {**BOOK, "cap": 0},
])  # fmt: skip
def test_settings_that_make_no_sense_are_one_line(wrong, speakers, tmp_path):
    with pytest.raises(UsageError, match="code book"):
        make_targets(speakers, [wrong], 0, cache=tmp_path)
