"""CTC: labels, loss and metrics against the definitions."""

from types import SimpleNamespace

import pytest
import torch

from speechft import console
from speechft.data.corpora import load_cuts
from speechft.data.loader import in_order
from speechft.errors import SpeechFTError, UsageError
from speechft.tasks.build import build_task
from speechft.tasks.heads import BlstmHead
from speechft.tasks.specaugment import augmented, mask_features, warp_time
from speechft.upstreams.load import load_upstream


@pytest.fixture
def cuts(librispeech):
    return load_cuts([{"kind": "librispeech", "root": str(librispeech), "split": "dev-clean"}])[0]


@pytest.fixture
def upstream(upstream_folder):
    return load_upstream(upstream_folder)


def _task(librispeech, **options):
    return build_task(
        {"kind": "ctc", "units": "phones", "lexicon": f"{librispeech}/lexicon.txt", "hidden": 16, **options}
    )


def test_labels_are_the_lexicons(librispeech, cuts, upstream, tmp_path):
    task = _task(librispeech)
    task.prepare(upstream, cuts, None, tmp_path)
    cut = cuts[0]
    by_hand = {"ONE": "W AH N", "TWO": "T UW", "TEN": "T EH N", "SIX": "S IH K S"}
    assert " ".join(task.label(cut)) == " ".join(by_hand[word] for word in cut.supervisions[0].text.split())
    assert task.vocabulary == ["<blank>", "AH", "EH", "IH", "K", "N", "S", "T", "UW", "W"]


def test_the_loss_is_ctc_by_enumeration(librispeech, upstream, cuts, tmp_path):
    """Three frames, two units: the loss is -log of the sum over all alignments, written out."""
    task = _task(librispeech)
    task.prepare(upstream, cuts, None, tmp_path)
    task.label = lambda cut: ["T", "UW"]
    logits = torch.randn(1, 3, len(task.vocabulary))
    task._logits = lambda upstream, batch: (logits, torch.tensor([3]))
    loss, _ = task.step(upstream, SimpleNamespace(cuts=[None]))
    p = logits.softmax(-1)[0]
    t, u = task._index["T"], task._index["UW"]
    paths = [(t, u, u), (t, t, u), (t, u, 0), (t, 0, u), (0, t, u)]
    total = sum(p[0, a] * p[1, b] * p[2, c] for a, b, c in paths)
    assert float(loss) == pytest.approx(float(-total.log() / 2), rel=1e-5)  # CTCLoss divides by the label's length


def test_greedy_decoding_and_the_phone_error_rate(librispeech, upstream, cuts, tmp_path):
    task = _task(librispeech)
    task.prepare(upstream, cuts, None, tmp_path)
    task.label = lambda cut: ["T", "EH", "N", "T", "UW"]
    path = ["T", "T", "<blank>", "EH", "N", "N", "<blank>", "N", "UW"]  # decodes to T EH N N UW: one substitution
    logits = torch.full((1, len(path) + 3, len(task.vocabulary)), -9.0)
    for frame, unit in enumerate(path):
        logits[0, frame, task.vocabulary.index(unit)] = 9.0
    logits[0, len(path) :, task.vocabulary.index("K")] = 9.0  # padding, which must not be decoded
    task._logits = lambda upstream, batch: (logits, torch.tensor([len(path)]))
    assert task.evaluate(upstream, [SimpleNamespace(cuts=[None])]) == {"per": pytest.approx(100 * 1 / 5)}


def test_word_and_character_error_rates(librispeech, upstream, cuts, tmp_path):
    task = build_task({"kind": "ctc", "units": "characters", "hidden": 16})
    task.prepare(upstream, cuts, None, tmp_path)
    task.label = lambda cut: list("ONE|TEN")
    path = ["O", "N", "E", "|", "T", "<blank>", "N"]  # ONE TN
    logits = torch.full((1, len(path), len(task.vocabulary)), -9.0)
    for frame, unit in enumerate(path):
        logits[0, frame, task.vocabulary.index(unit)] = 9.0
    task._logits = lambda upstream, batch: (logits, torch.tensor([len(path)]))
    metrics = task.evaluate(upstream, [SimpleNamespace(cuts=[None])])
    assert metrics == {"wer": pytest.approx(50.0), "cer": pytest.approx(100 / 7)}


def test_padding_changes_nothing_in_the_blstm_head():
    torch.manual_seed(0)
    head = BlstmHead(8, 6, 5).eval()
    states = torch.randn(2, 9, 8)
    alone = head(states[1:, :4], torch.tensor([4]))
    together = head(states, torch.tensor([9, 4]))
    assert torch.allclose(alone[0], together[1, :4], atol=1e-6)


def test_the_blstm_head_is_s3prls():
    """The published model (`RNNs` without downsampling) with the same weights; dropout behind the last layer too."""
    from native_models import compat

    compat.install()
    from s3prl.downstream.asr.model import RNNs

    torch.manual_seed(0)
    head, frames = BlstmHead(8, 6, 5), torch.tensor([9, 4])
    theirs = RNNs(6, 5, 320, "LSTM", True, [6] * 3, [0.2] * 3, [False] * 3, [False] * 3, [1] * 3, "concat", -1).eval()
    for layer, rnn in enumerate(theirs.rnns):
        for name, parameter in rnn.layer.named_parameters():
            parameter.data = getattr(head.lstm, name.replace("l0", f"l{layer}")).data
    theirs.linear.load_state_dict(head.output.state_dict())
    states = torch.randn(2, 9, 8)
    expected = theirs(head.project(states), frames)[0]
    assert torch.allclose(head.eval()(states, frames)[0], expected[0], atol=1e-6)
    assert torch.allclose(head(states, frames)[1, :4], expected[1, :4], atol=1e-6)
    dropped = BlstmHead(8, 6, 5, dropout=1.0).train()
    assert torch.equal(dropped(states, frames), dropped.output.bias.expand(2, 9, 5))


def test_feature_masks_cover_spans_of_frames_and_dimensions():
    torch.manual_seed(0)
    states, frames = torch.ones(64, 50, 20), torch.full((64,), 50)
    only_time = mask_features(states, frames, 1, 10, 0, 0)
    zero = (only_time == 0).all(-1)
    assert torch.equal(zero, (only_time == 0).any(-1))  # whole frames
    lengths = zero.sum(1)
    assert lengths.max() <= 10 and lengths.min() >= 0 and lengths.float().mean() > 3
    only_dims = mask_features(states, frames, 0, 0, 2, 5)
    assert ((only_dims == 0).all(1) == (only_dims == 0).any(1)).all()
    assert torch.equal(mask_features(states, frames, 2, 0, 2, 0), states)


def test_time_is_warped_as_by_s3prl():
    """The same draws give the same features and the same gradient; what is too short stays."""
    from native_models import compat

    compat.install()
    from s3prl.downstream.specaug import TimeWarp

    frames = torch.tensor([40, 25, 10])
    states = torch.randn(3, 40, 6) * (torch.arange(40)[:, None] < frames[:, None, None])
    results = []
    for warp in (lambda x: TimeWarp(5)(x, frames)[0], lambda x: warp_time(x, frames, 5)):
        given = states.clone().requires_grad_()
        torch.manual_seed(1)
        warped = warp(given)
        (warped * torch.arange(6)).sum().backward()
        results.append((warped.detach(), given.grad))
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)
    warped = results[1][0]
    assert not torch.equal(warped[0], states[0]) and torch.equal(warped[2], states[2])
    torch.manual_seed(1)
    assert torch.equal(augmented(states, frames, 0, 0, 0, 0, time_warp=5), warped)
    torch.manual_seed(1)
    behind = warp_time(states + 9 * (torch.arange(40)[:, None] >= frames[:, None, None]), frames, 5)
    assert torch.equal(behind, warped)  # padding is not looked at


@pytest.mark.parametrize("wrong", [{"time_masks": 2}, {"width": 3}, {"time_warp": -1}, {"dim_width": 2.5}])
def test_wrong_specaugment_is_one_line(wrong):
    whole = {"time_masks": 2, "time_width": 40, "dim_masks": 4, "dim_width": 50}
    options = wrong if "time_masks" in wrong else {**whole, **wrong}
    with pytest.raises(UsageError, match=r"task\.specaugment: \w+ is missing, unknown or no whole number"):
        build_task({"kind": "ctc", "units": "characters", "specaugment": options})


@pytest.mark.parametrize(("width", "told"), [(50, True), (2, False)])
def test_masks_too_wide_for_a_narrow_upstream_are_told(
    width, told, librispeech, upstream, cuts, tmp_path, capsys, monkeypatch
):
    """The tests' upstream has 32 dimensions: four masks of up to 50 take nearly all, four of up to 2 as the paper's."""
    monkeypatch.setattr(console, "_said", set())
    masks = {"time_masks": 2, "time_width": 40, "dim_masks": 4, "dim_width": width}
    _task(librispeech, specaugment=masks).prepare(upstream, cuts, None, tmp_path)
    words = f"up to 32 of this upstream's {upstream.dim} dimensions, as its widths are for 768"
    assert (words in " ".join(capsys.readouterr().err.split())) is told


def test_words_that_the_lexicon_lacks_are_named(librispeech, upstream, cuts, tmp_path):
    (tmp_path / "short.txt").write_text("ONE W AH N\nTWO T UW\n")
    task = _task(librispeech, lexicon=str(tmp_path / "short.txt"))
    with pytest.raises(SpeechFTError, match="2 words are not in the lexicon: SIX, TEN"):
        task.prepare(upstream, cuts, None, tmp_path)


def test_labels_longer_than_the_audio_are_refused(librispeech, upstream, cuts, tmp_path):
    task = _task(librispeech)
    task.label = lambda cut: ["T", "T"] * 400
    with pytest.raises(SpeechFTError, match="more phones than frames"):
        task.prepare(upstream, cuts, None, tmp_path)


def test_mistakes_are_explained(librispeech, upstream, cuts, tmp_path):
    with pytest.raises(UsageError, match="unknown units 'letters'; known: phones, characters"):
        build_task({"kind": "ctc", "units": "letters"})
    with pytest.raises(UsageError, match=r"unknown kind of task 'cct'; known: .*ctc, .*masked_prediction"):
        build_task({"kind": "cct"})
    with pytest.raises(UsageError, match="task ctc"):
        build_task({"kind": "ctc", "units": "phones", "widht": 3})
    with pytest.raises(SpeechFTError, match=r"has no phones; give task.lexicon"):
        build_task({"kind": "ctc", "units": "phones"}).prepare(upstream, cuts, None, tmp_path)
    with pytest.raises(SpeechFTError, match="lexicon /nowhere is missing"):
        build_task({"kind": "ctc", "units": "phones", "lexicon": "/nowhere"})


def test_evaluation_reads_every_utterance(librispeech, upstream, cuts, tmp_path):
    task = _task(librispeech)
    torch.manual_seed(0)
    task.prepare(upstream, cuts, None, tmp_path)
    with torch.no_grad():
        metrics = task.eval().evaluate(upstream.eval(), in_order(cuts, 10.0))
    assert 0 < metrics["per"] < 1000
