"""Masked prediction: targets at the right times, masks of the right size, a loss that falls."""

import numpy as np
import pytest
import torch
from lhotse import CutSet

from speechft.data.corpora import load_cuts
from speechft.data.loader import Batch, read_cut
from speechft.errors import UsageError
from speechft.tasks.build import build_task
from speechft.tasks.targets import make_targets
from speechft.upstreams.base import pad_waveforms
from speechft.upstreams.load import load_upstream


@pytest.fixture(scope="module")
def cuts(librispeech):
    return load_cuts([{"kind": "librispeech", "root": str(librispeech), "split": "dev-clean"}])[0]


@pytest.mark.parametrize("codebook", [
    {"features": "mfcc", "clusters": 6}, {"features": "logmel", "clusters": 6},
    {"features": "upstream", "upstream": "hubert_nano_random", "layers": [1, 2], "clusters": 6},
], ids=lambda codebook: codebook["features"])  # fmt: skip
def test_clusters_follow_the_sounds(cuts, codebook, tmp_path):
    """Words of this corpus are tones: frames of one tone share a cluster that other tones do not have."""
    labels = make_targets(cuts, [codebook], seed=0, cache=tmp_path)[0]
    assert labels.keys() == {cut.id for cut in cuts}
    votes: dict[str, list[int]] = {}
    for cut in cuts:
        assert labels[cut.id].shape[1] == 1
        frames = labels[cut.id][:, 0]
        assert abs(len(frames) - cut.duration * 50) <= 2 and frames.max() < 6
        for place, word in enumerate(cut.supervisions[0].text.split()):
            inside = frames[int(50 * 0.35 * place) + 4 : int(50 * 0.35 * (place + 1)) - 4]
            votes.setdefault(word, []).extend(int(x) for x in inside)
    purity = {word: np.bincount(v).max() / len(v) for word, v in votes.items()}
    assert np.mean(list(purity.values())) > 0.6
    again = make_targets(cuts, [codebook], seed=0, cache=tmp_path)[0]
    assert all(np.array_equal(labels[id], again[id]) for id in labels)
    assert len(list(tmp_path.glob("*.npz"))) == 1


def test_long_contexts_smooth_log_mels(cuts, tmp_path):
    books = [{"features": "logmel", "clusters": 6}, {"features": "logmel", "context": 2.0, "clusters": 6}]
    short, long = make_targets(cuts, books, 0, cache=tmp_path)

    def changes(labels):
        return sum(int((np.diff(row[:, 0].astype(int)) != 0).sum()) for row in labels.values())

    assert changes(long) < changes(short)


def test_product_quantisation_clusters_the_parts_apart(cuts, tmp_path):
    """Each part's labels are those of its own dimensions: equal values there, equal labels, whatever the rest does."""
    labels = make_targets(cuts, [{"features": "logmel", "clusters": 4, "splits": 2}], 0, cache=tmp_path)[0]
    rows = np.concatenate(list(labels.values()))
    assert rows.shape[1] == 2 and rows.max() == 3
    assert len({tuple(row) for row in rows}) > 4  # more combinations than one book of four could name


def _prepared(cuts, tmp_path, **options):
    task = build_task({"kind": "masked_prediction", "codebooks": [{"features": "mfcc", "clusters": 8}], **options})
    upstream = load_upstream("hubert_nano_random")
    torch.manual_seed(0)
    task.prepare(upstream, cuts, None, tmp_path)
    return task, upstream, Batch([read_cut(cut) for cut in cuts], list(cuts))


def test_masks_cover_the_wanted_share_in_spans(cuts, tmp_path):
    task, _, _ = _prepared(cuts, tmp_path, mask_fraction=0.4, mask_span=5)
    torch.manual_seed(0)
    frames = torch.tensor([200, 100] * 50)
    mask = task._spans(frames, 200)
    valid = torch.arange(200) < frames[:, None]
    share = (mask & valid).float().sum(1) / frames
    assert 0.25 < share[::2].mean() < 0.4 and 0.25 < share[1::2].mean() < 0.4  # spans overlap, so a little less
    starts = (mask[:, 1:] & ~mask[:, :-1]).sum(1)
    assert (mask.sum(1) >= 5 * starts.clamp(max=1)).all()


def test_the_mask_hides_the_input(cuts, tmp_path):
    """With everything masked, what was said cannot change the predictions; lengths do not differ here."""
    task, upstream, batch = _prepared(cuts, tmp_path)
    upstream.eval()
    task._spans = lambda frames, length: torch.ones(len(frames), length, dtype=torch.bool)
    silent = Batch([torch.randn_like(wave) for wave in batch.waves], batch.cuts)
    with torch.no_grad():
        assert torch.allclose(task.step(upstream, batch)[0], task.step(upstream, silent)[0], atol=1e-5)


def _learn(task, upstream, batch, steps):
    """The losses of so many steps on one batch."""
    optimizer = torch.optim.Adam([*task.parameters(), *upstream.parameters()], lr=1e-3)
    upstream.train()
    losses = []
    for step in range(steps):
        torch.manual_seed(step)
        loss, _ = task.step(upstream, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_the_loss_falls_and_evaluation_repeats(cuts, tmp_path):
    task, upstream, batch = _prepared(cuts, tmp_path)
    losses = _learn(task, upstream, batch, 12)
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    upstream.eval()
    with torch.no_grad():
        first, second = (task.evaluate(upstream, [batch]) for _ in range(2))
    assert first == second and 0 <= first["masked_accuracy"] <= 100


def test_augmentation_is_for_training_only(cuts, tmp_path, monkeypatch):
    """Labels stay those of the clean speech, and the dev metric is measured on clean speech."""
    from speechft.tasks import masked_prediction

    calls = []
    for name in ("mixed", "coloured"):
        monkeypatch.setattr(masked_prediction, name, lambda waves, *rest, name=name: calls.append(name) or waves)
    task, upstream, batch = _prepared(cuts, tmp_path, mix_probability=0.5, channel_probability=0.5)
    task.evaluate(upstream, [batch])
    assert calls == []
    task.step(upstream, batch)
    assert calls == ["mixed", "coloured"]


def test_statistics_of_an_utterance_are_the_same_in_every_frame(cuts, tmp_path):
    from speechft.tasks.frame_features import featurizer

    wave = read_cut(next(iter(cuts)))
    plain = featurizer({"features": "logmel"})[0]([wave])[0][0]
    whole = featurizer({"features": "logmel", "context": None, "statistics": ["mean", "std"]})[0]([wave])[0][0]
    assert whole.shape == (len(plain), 160)
    expected = torch.cat([plain.mean(0), plain.std(0, correction=0)])
    assert torch.allclose(whole, expected.expand_as(whole), atol=1e-3)
    near = featurizer({"features": "logmel", "context": 0.1})[0]([wave])[0][0]
    assert torch.allclose(near[30], plain[20:41].mean(0), atol=1e-3)


@pytest.mark.parametrize(("codebook", "said"), [
    ({"features": "mfc"}, "unknown code book features 'mfc'"),
    ({"features": "upstream", "upstream": "hubert_nano_random", "layers": [9]}, r"has no layers \[9\]"),
    ({"features": "upstream", "upstream": "hubert_nano_random"}, "layers"),
    ({"features": "logmel", "context": None, "statistics": ["mode"]}, "unknown statistics"),
])  # fmt: skip
def test_mistakes_are_explained(cuts, tmp_path, codebook, said):
    with pytest.raises(UsageError, match=said):
        make_targets(cuts, [{**codebook, "clusters": 3}], 0, cache=tmp_path)


def test_books_of_the_same_features_share_a_pass_and_keep_their_labels(cuts, tmp_path, monkeypatch):
    from speechft.tasks import targets

    books = [{"features": "logmel", "clusters": 4}, {"features": "logmel", "clusters": 3, "splits": 2},
             {"features": "mfcc", "clusters": 4}]  # fmt: skip
    apart = [make_targets(cuts, [book], 0, cache=tmp_path / str(number))[0] for number, book in enumerate(books)]
    calls = []
    original = targets.featurizer
    monkeypatch.setattr(
        targets, "featurizer", lambda options, own: calls.append(options["features"]) or original(options, own)
    )
    together = make_targets(cuts, books, 0, cache=tmp_path / "together")
    assert sorted(calls) == ["logmel", "mfcc"]
    for one, other in zip(apart, together, strict=True):
        assert all(np.array_equal(one[id], other[id]) for id in one)


def test_the_loss_is_a_mean_over_parts_and_books_at_their_layers(cuts, tmp_path):
    """Against the definition, written out: one head a part, cross-entropy over masked frames, weights that sum to 1."""
    books = [
        {"features": "mfcc", "clusters": 5, "splits": 2, "weight": 3.0},
        {"features": "logmel", "clusters": 4, "layer": 1, "weight": 1.0},
        {"features": "logmel", "clusters": 6, "layer": "mean", "weight": 2.0},
    ]
    task, upstream, batch = _prepared(cuts, tmp_path, codebooks=books, unmasked_weight=0.5)
    upstream.eval()
    torch.manual_seed(7)
    mask = task._spans(upstream.frame_counts(torch.tensor([len(wave) for wave in batch.waves])), 60)
    task._spans = lambda frames, length: mask[:, :length]
    with torch.no_grad():
        loss, figures = task.step(upstream, batch)
        waves, lengths = pad_waveforms(batch.waves, 690, True)
        frames = upstream.frame_counts(lengths)
        hidden = upstream.project(upstream.cnn(waves, lengths))
        hidden[mask[:, : hidden.shape[1]]] = upstream.model.masked_spec_embed
        states = upstream.encode(hidden, frames)
        sums = {}
        for book, options in enumerate(books):
            features = {key: value for key, value in options.items() if key not in ("weight", "layer")}
            labels = make_targets(cuts, [features], 0, upstream.first_centre)[0]
            splits = options.get("splits", 1)
            for row, cut in enumerate(cuts):
                weights = task.heads[book].weight.chunk(splits), task.heads[book].bias.chunk(splits)
                for frame in range(int(frames[row])):
                    if frame >= len(labels[cut.id]):
                        continue
                    state = sum(states)[row, frame] / len(states)
                    if options.get("layer") != "mean":
                        state = states[options.get("layer", -1)][row, frame]
                    for part in range(splits):
                        logits = weights[0][part] @ state + weights[1][part]
                        value = torch.logsumexp(logits, 0) - logits[int(labels[cut.id][frame, part])]
                        sums.setdefault((book, bool(mask[row, frame])), []).append(float(value))
    expected = sum(
        options["weight"] / 6 * (np.mean(sums[book, True]) + 0.5 * np.mean(sums[book, False]))
        for book, options in enumerate(books)
    )
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    assert figures["masked_loss"] == pytest.approx(
        sum(options["weight"] / 6 * np.mean(sums[book, True]) for book, options in enumerate(books)), rel=1e-4
    )


def test_a_layer_that_is_not_there(cuts, tmp_path):
    last = load_upstream("hubert_nano_random").num_layers - 1
    with pytest.raises(UsageError, match=rf"layer is {last + 1}.*0 to {last}"):
        _prepared(cuts, tmp_path, codebooks=[{"features": "mfcc", "clusters": 5, "layer": last + 1}])


def test_a_layer_that_is_no_layer(cuts, tmp_path):
    with pytest.raises(UsageError, match=r"layer is 'last'.*a number, or mean"):
        _prepared(cuts, tmp_path, codebooks=[{"features": "mfcc", "clusters": 5, "layer": "last"}])


def test_pieces_are_refused(cuts, tmp_path):
    task = build_task({"kind": "masked_prediction", "codebooks": [{"features": "mfcc", "clusters": 3}]})
    with pytest.raises(UsageError, match="chunk_seconds"):
        task.prepare(load_upstream("hubert_nano_random", chunk_seconds=1.0, chunk_overlap=0.2), cuts, None, tmp_path)


def test_other_audio_under_the_same_name_has_other_labels(tmp_path):
    import os

    import soundfile

    rows = "id\tpath\n" + "".join(f"u{number}\tu{number}.wav\n" for number in range(4))
    (tmp_path / "table.tsv").write_text(rows)

    def labels(seed):
        generator = np.random.default_rng(seed)
        for number in range(4):
            soundfile.write(tmp_path / f"u{number}.wav", 0.1 * generator.standard_normal(8000), 16_000)
            os.utime(tmp_path / f"u{number}.wav", (seed, seed))  # as if written at another time
        cuts = load_cuts([{"kind": "tsv", "path": str(tmp_path / "table.tsv"), "text": None}])[0]
        return make_targets(cuts, [{"features": "logmel", "clusters": 4}], 0, cache=tmp_path / "cache")[0]

    first, second = labels(1), labels(2)
    assert any(not np.array_equal(first[id], second[id]) for id in first)


@pytest.mark.parametrize("wrong", [{"clusters": 3, "wieght": 2}, {"cluster": 3}, {}, {"clusters": 0},
                                   {"clusters": 3, "layers": [1]}, {"clusters": 3, "discriminate": 2},
                                   {"discriminate": 2, "regress": True},
                                   {"whiten": 2, "regress": True, "context": None, "channels": 1.0},
                                   {"discriminate": 2, "regress": True, "context": None, "channels": "strong"},
                                   {"discriminate": 2, "whiten": 2, "regress": True, "context": None}])  # fmt: skip
def test_mistyped_settings_of_a_code_book(cuts, tmp_path, wrong):
    with pytest.raises(UsageError, match=r"code book"):
        _prepared(cuts, tmp_path, codebooks=[{"features": "mfcc", **wrong}])


def test_regression_targets_are_whitened_components(cuts, tmp_path):
    """A book that regresses keeps the features' components; one over the whole utterance keeps a vector for it."""
    books = [
        {"features": "logmel", "whiten": 5, "regress": True},
        {"features": "logmel", "context": None, "whiten": 3, "regress": True},
    ]
    frames, whole = make_targets(cuts, books, 0, cache=tmp_path)
    rows = np.concatenate(list(frames.values())).astype(np.float32)
    assert rows.dtype == np.float32 and rows.shape[1] == 5
    assert np.allclose(np.cov(rows.T), np.eye(5), atol=0.1)
    assert all(frames[cut.id].dtype == np.float16 and whole[cut.id].shape == (1, 3) for cut in cuts)
    again = make_targets(cuts, books, 0, cache=tmp_path)
    assert all(np.array_equal(frames[cut.id], again[0][cut.id]) for cut in cuts)


def test_discriminating_targets_tell_utterances_apart(cuts, tmp_path):
    """One vector for an utterance; halves of one utterance lie nearer to each other in it than in the features."""
    book = {"features": "logmel", "normalize": True, "context": None, "statistics": ["mean", "std"]}
    book |= {"discriminate": 6, "regress": True}
    targets = make_targets(cuts, [book], 0, cache=tmp_path)[0]
    assert all(targets[cut.id].shape == (1, 6) for cut in cuts)
    louder = [cut.perturb_volume(3.0) for cut in cuts]
    same = make_targets(CutSet.from_cuts(louder), [book], 0, cache=tmp_path / "louder")[0]
    first = cuts[0].id
    assert np.allclose(same[f"{first}_vp3.0"], targets[first], atol=0.02)  # the level is taken out


def test_regression_loss_is_the_mean_squared_error(cuts, tmp_path):
    """With a head that answers 0, the error is the targets' mean square: of frames, and of utterances by length."""
    for context in ({}, {"context": None}):
        book = {"features": "logmel", "whiten": 4, "regress": True, **context}
        task, upstream, batch = _prepared(cuts, tmp_path, codebooks=[book], unmasked_weight=0.0)
        task._spans = lambda frames, length: torch.ones(len(frames), length, dtype=torch.bool)
        for parameter in task.heads.parameters():
            torch.nn.init.zeros_(parameter)
        frames = upstream.frame_counts(torch.tensor([len(wave) for wave in batch.waves])).tolist()
        squares, count = 0.0, 0
        for cut, length in zip(batch.cuts, frames, strict=True):
            own = task._targets[0][cut.id].astype(np.float64)[:length]
            weight = length / len(own) if context else 1.0
            squares, count = squares + weight * np.square(own).mean(1).sum(), count + int(weight * len(own))
        assert float(task.step(upstream, batch)[0].detach()) == pytest.approx(squares / count, rel=1e-3)


def test_regression_is_learned(cuts, tmp_path):
    books = [{"features": "logmel", "whiten": 4, "regress": True, "layer": 1}]
    task, upstream, batch = _prepared(cuts, tmp_path, codebooks=books)
    losses = _learn(task, upstream, batch, 15)
    assert losses[-1] < 0.8 * losses[0]


def test_clean_books_leave_out_what_was_changed(cuts, tmp_path, monkeypatch):
    """Only the first utterance stays: the loss is that of a batch of it alone."""
    from speechft.tasks import masked_prediction

    book = {"features": "logmel", "context": None, "whiten": 3, "regress": True, "clean": True}
    task, upstream, batch = _prepared(cuts, tmp_path, codebooks=[book], channel_probability=0.5, mask_fraction=0.0)
    task._spans = lambda frames, length: torch.zeros(len(frames), length, dtype=torch.bool)
    monkeypatch.setattr(
        masked_prediction, "coloured", lambda waves, *rest: [waves[0], *(-2 * wave for wave in waves[1:])]
    )
    upstream.eval()
    with torch.no_grad():
        several = float(task.step(upstream, batch)[0])
        alone = float(task.step(upstream, Batch(batch.waves[:1], batch.cuts[:1]))[0])
    assert several == pytest.approx(alone, rel=1e-3) and several > 0


def test_frames_without_a_weight_are_left_out(cuts, tmp_path):
    """The loss on masked frames is the same, and the heads are given no others."""
    books = [{"features": "mfcc", "clusters": 6}, {"features": "logmel", "regress": True, "whiten": 8},
             {"features": "logmel", "regress": True, "whiten": 4, "context": None}]  # fmt: skip
    results = []
    for weight in (0.5, 0.0):
        task, upstream, batch = _prepared(cuts, tmp_path, codebooks=books, unmasked_weight=weight)
        rows = []
        task.heads[0].register_forward_hook(lambda _, given, __, rows=rows: rows.append(len(given[0])))
        torch.manual_seed(5)
        loss, figures = task.step(upstream.eval(), batch)
        results.append((figures["masked_loss"], float(loss.detach()), rows[0]))
    (masked, whole, every), (alone, loss, few) = results
    assert alone == pytest.approx(masked, rel=1e-5) and loss == pytest.approx(alone) and whole > loss
    assert few < 0.6 * every
