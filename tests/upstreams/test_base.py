"""What an upstream is given, looked at before it runs."""

import numpy as np
import pytest
import torch

from speechft.errors import UsageError
from speechft.upstreams.load import load_upstream


@pytest.mark.parametrize(
    ("waves", "message"),
    [
        ([], "an upstream was given no waveforms; give a list of at least one"),
        ([torch.zeros(8), torch.zeros(2, 8)], r"waveform 1 of 2 is of shape \(2, 8\); .*one channel"),
        (torch.zeros(16_000), r"waveform 0 of 16000 is of shape \(\)"),
        ([torch.zeros(8, dtype=torch.int16)], r"waveform 0 of 1 is of torch\.int16; give floats in \[-1, 1\]"),
        ([np.zeros(8, np.int16)], r"waveform 0 of 1 is no tensor but ndarray; give torch\.from_numpy"),
        (["a.wav"], "waveform 0 of 1 is no tensor but str"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["fbank", "tiny"])
def test_what_is_no_waveform_is_one_line(name, waves, message, upstream_folder):
    upstream = load_upstream(upstream_folder if name == "tiny" else name)
    with pytest.raises(UsageError, match=message):
        upstream(waves)


def test_an_empty_waveform_gives_a_frame_and_a_batch_may_be_a_tensor():
    upstream = load_upstream("fbank")
    assert upstream([torch.zeros(0), torch.zeros(8_000)]).frames.tolist() == [1, 48]
    assert upstream(torch.zeros(2, 8_000)).last.shape == (2, 48, 240)
