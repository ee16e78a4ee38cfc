"""A merge method of the user's own: the one of docs/own_merge_method.md against numpy; mistakes are explained."""

import json

import numpy as np
import pytest
from documented import block, commands
from safetensors.numpy import load_file

from speechft.choosing.candidates import Candidates
from speechft.errors import SpeechFTError, UsageError
from speechft.merge.merge import merge
from speechft.merge.registry import method_named


@pytest.fixture
def clipped(tmp_path):
    (tmp_path / "clipped.py").write_text(block("own_merge_method.md"))
    return tmp_path / "clipped.py"


def test_the_documented_method_is_short_and_does_what_it_says(clipped, parents, cli, tmp_path):
    assert len(clipped.read_text().splitlines()) < 40
    base, tuned = parents
    (words,) = commands("own_merge_method.md")
    assert words == ["merge", "--method", "clipped.py:clipped", "--set", "limit=0.02"]
    done = cli(*words, "--pretrained", base, "--finetuned", *tuned, "--alpha", 0.5, "--keep", "layers.0",
               "--out", tmp_path / "out", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "out" / "clipped-alpha-0.5-varied"
    assert done.stdout.strip() == str(folder)
    origin, others, merged = load_file(base / "model.safetensors"), [], load_file(folder / "model.safetensors")
    others = [load_file(one / "model.safetensors") for one in tuned]
    shortened = 0
    for name, value in merged.items():
        zero = origin[name].astype(np.float64)
        update = sum(other[name].astype(np.float64) for other in others) / 2 - zero
        length = np.sqrt((update**2).sum())
        longest = 0.02 * np.sqrt((zero**2).sum())
        shortened += length > longest
        update *= min(1.0, longest / length)
        expected = zero if name.startswith("encoder.layers.0.") else zero + 0.5 * update
        np.testing.assert_allclose(value, expected, atol=1e-6, err_msg=name)
    assert shortened > 5
    record = json.loads((folder / "merge.json").read_text())
    assert record["method"] == "clipped" and record["parameters"] == {"limit": 0.02}
    assert record["formula"].startswith("θ0 + α · τ · min(1") and "clipped.py, sha256 " in record["paper"]
    assert "`limit` 0.02" in (folder / "README.md").read_text()


def test_the_signature_gives_the_parameters(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def mine(a, b, alpha, *, share=0.5, times=2, hard=False, weights=None, seed=0):\n    return a\n"
    )
    method = method_named(f"{tmp_path}/mine.py:mine")
    values = method.read({"share": "0.1", "times": "3", "hard": "true", "weights": "1,2"}, 2)
    assert values == {"share": 0.1, "times": 3, "hard": True, "weights": [1.0, 2.0], "seed": 0} and method.draws
    with pytest.raises(UsageError, match="mine has no parameter 'shar'; known: share, times"):
        method.read({"shar": "1"}, 1)


def test_a_method_object_says_more_of_itself(tmp_path, parents):
    base, (tuned, _) = parents
    (tmp_path / "far.py").write_text(
        "from speechft.merge.method import Method\n"
        "def far(base, tuned, alpha):\n    return base.double() + alpha * (tuned[0].double() - base.double())\n"
        "METHOD = Method('far', far, 'θ0 + α · τ', 'nobody', alpha=0.75, elementwise=True, most=1)\n"
    )
    (one,) = merge(base, [tuned], method=f"{tmp_path}/far.py:METHOD", out=tmp_path / "out")
    assert one.alpha == 0.75 and one.folder.name == "far-alpha-0.75"
    (linear,) = merge(base, [tuned], [0.75], out=tmp_path / "out")
    ours, theirs = (load_file(model.folder / "model.safetensors") for model in (one, linear))
    assert all(np.allclose(ours[name], theirs[name], atol=1e-6) for name in theirs)


def test_an_edited_method_is_another_one_for_alpha_auto(clipped, parents):
    base, tuned = parents
    candidates = Candidates("x", {"source": str(base), "name": "x"}, tuned, {"method": f"{clipped}:clipped"})
    before = candidates.identity
    assert before == candidates.identity
    clipped.write_text(clipped.read_text().replace("limit=0.05", "limit=0.07"))
    assert before != candidates.identity


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def clip(base, tuned, alpha): return base", r"has no method 'mine' .*; its methods: clip"),
        ("def mine(base, tuned): return base", r"mine does not take \(base, tuned, alpha, \*"),
        ("def mine(base, tuned, alpha, *, kind='soft'): return base", "kind has no default that is a number"),
        ("def mine(base, tuned, alpha, *, kind): return base", "kind has no default that is a number"),
        ("def mine(base, tuned, alpha, **other): return base", "is no parameter that can be set"),
        ("def mine(base, tuned, alpha): return tuned", "gives list for a tensor of shape"),
        ("def mine(base, tuned, alpha): return base.sum()", r"gives \[\] torch.float32 for a tensor of shape \["),
        ("def mine(base, tuned, alpha): return base / 0", "gives numbers that are not finite for a tensor"),
        ("def mine(base, tuned, alpha): return base @ tuned", r"fails on a tensor of shape \[.*\(TypeError"),
        ("def linear(base, tuned, alpha): return base\nmine = linear", "linear is a method of speechft's already"),
        ("import nowhere", "does not load"),
    ],
)
def test_mistakes_are_explained(text, message, parents, tmp_path):
    base, (tuned, _) = parents
    (tmp_path / "mine.py").write_text(text + "\n")
    with pytest.raises(SpeechFTError, match=message):
        merge(base, [tuned], method=f"{tmp_path}/mine.py:mine", out=tmp_path / "out")
    assert not list((tmp_path / "out").glob("*/model.safetensors"))


def test_an_unknown_name_says_that_one_may_bring_ones_own():
    with pytest.raises(
        UsageError, match=r"unknown merge method 'mine'; known: linear, .*, or your own: path/to/file.py"
    ):
        method_named("mine")
