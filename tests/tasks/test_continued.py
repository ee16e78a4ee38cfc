"""Continued pre-training: labels are clusters of the starting upstream's own layer, for every family with a mask."""

import numpy as np
import pytest
import torch
from learning import cuts_of, learn
from small import save_upstream
from tiny_labelled import make_labelled

from speechft.config.locate import read_group
from speechft.data.loader import Batch, read_cut
from speechft.errors import SpeechFTError, UsageError
from speechft.tasks.build import build_task
from speechft.tasks.targets import make_targets
from speechft.upstreams.load import load_upstream

OWN = {"features": "upstream", "upstream": "own", "layers": None, "clusters": 8}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return make_labelled(tmp_path_factory.mktemp("continued"), train=24, dev=12, words=1)


def _task(**options):
    return build_task({**read_group("task", "masked_prediction"), "codebooks": [OWN], **options})


def test_the_configuration_asks_for_the_upstreams_own_clusters():
    (codebook,) = read_group("task", "masked_prediction")["codebooks"]
    assert codebook == {**OWN, "clusters": 500}


@pytest.mark.parametrize(("layers", "means"), [(None, [3]), ([1, 4], [1, 4])])
def test_own_labels_are_those_of_the_same_model_named(table, tmp_path, layers, means):
    """hubert_nano has four layers: three quarters of them are three."""
    cuts, own = cuts_of(table, "train"), load_upstream("hubert_nano")
    mine = make_targets(cuts, [{**OWN, "layers": layers}], 0, own.first_centre, tmp_path / "a", own)[0]
    named = {**OWN, "upstream": "hubert_nano", "layers": means}
    other = make_targets(cuts, [named], 0, own.first_centre, tmp_path / "b")[0]
    assert mine.keys() == other.keys() and all(np.array_equal(mine[key], other[key]) for key in mine)
    assert len(np.unique(np.concatenate(list(mine.values())))) == 8


def test_other_weights_have_other_labels(table, tmp_path):
    """A run that starts from another's result must not find that one's labels in the cache."""
    cuts, own = cuts_of(table, "train"), load_upstream("hubert_nano")
    make_targets(cuts, [OWN], 0, own.first_centre, tmp_path, own)
    other = load_upstream("hubert_nano_random")
    make_targets(cuts, [OWN], 0, other.first_centre, tmp_path, other)
    assert len(list(tmp_path.glob("*.npz"))) == 2


def test_it_learns_to_predict_what_is_hidden(table, tmp_path):
    before, after = learn(_task(), cuts_of(table, "train"), cuts_of(table, "dev"), tmp_path, 20)
    assert before["masked_accuracy"] < 35 and after["masked_accuracy"] > before["masked_accuracy"] + 15
    assert after["masked_loss"] < 0.8 * before["masked_loss"], (before, after)


@pytest.mark.parametrize("family", ["wavlm", "wav2vec2", "unispeech-sat"])
def test_other_families_with_a_mask_embedding_train_too(family, table, tmp_path):
    upstream = load_upstream(save_upstream(tmp_path / family, family))
    cuts = list(cuts_of(table, "train"))[:6]
    task = _task()
    torch.manual_seed(0)
    task.prepare(upstream, cuts, None, tmp_path)
    batch = Batch([read_cut(cut) for cut in cuts], cuts)
    optimizer = torch.optim.Adam([*task.parameters(), *upstream.parameters()], lr=3e-3)
    start, losses = upstream.model.masked_spec_embed.detach().clone(), []
    for step in range(15):
        torch.manual_seed(step)
        loss, _ = task.train().step(upstream.train(), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    assert not torch.equal(upstream.model.masked_spec_embed, start)


def test_an_upstream_without_a_mask_is_refused(whisper_folder, table, tmp_path):
    with pytest.raises(SpeechFTError, match=r"has no mask embedding, .*; choose HuBERT, WavLM, wav2vec 2.0"):
        _task().prepare(load_upstream(whisper_folder), cuts_of(table, "train"), None, tmp_path)


def test_more_clusters_than_frames_are_refused(table, tmp_path):
    with pytest.raises(UsageError, match=r"\d+ frames of 20 ms cannot be put into 5000 clusters; take fewer"):
        _task(codebooks=[{**OWN, "clusters": 5000}]).prepare(
            load_upstream("hubert_nano"), cuts_of(table, "train"), None, tmp_path
        )
