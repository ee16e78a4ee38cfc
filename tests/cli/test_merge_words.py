"""`speechft merge`: the words that choose a method, and what is said when they are wrong."""

import json

import pytest

from speechft.cli.main import main
from speechft.merge.registry import METHODS


def test_the_table_of_methods(capsys):
    assert main(["merge", "--methods"]) == 0
    shown = capsys.readouterr().out
    assert main(["merge", "--methods", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["method"] for one in listed] == list(METHODS)
    for one in listed:
        assert f"{one['method']}: {one['formula']}\n    {one['paper']}" in shown
        for parameter in one["parameters"]:
            assert f"    {parameter['name']}: {parameter['meaning']}; {parameter['range']}" in shown
    assert {"name": "density", "type": "float", "range": "a number above 0 to 1", "default": 0.2,
            "meaning": "share of each update that stays, the largest first"} in listed[3]["parameters"]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "tis"], "unknown merge method 'tis'; known: linear, slerp,"),
        (["--method", "ties", "--set", "density"], "'density' sets nothing; write NAME=VALUE"),
        (["--method", "ties", "--set", "densty=1"], "ties has no parameter 'densty'; known: density, scope, weights"),
        (["--method", "ties", "--set", "density=2"], "density is '2'; give a number above 0 to 1"),
        (["--alpha-at", "cnn"], "'cnn' gives no part its alpha; write PATTERN=A, such as layers.0=0.5"),
        (["--alpha-at", "cnn=high"], "'cnn=high' gives no part its alpha"),
        (["--alpha-at", "cnn=1.5"], "alpha 1.5 is outside [0, 1]; that extrapolates: add --extrapolate"),
        (["--alpha-at", "cn=0.5"], "no tensor matches 'cn'; parts: position, layers.0, layers.1, cnn,"),
        (["--alpha-by-depth", "0", "1", "--alpha", "0.5"], "alpha is given twice"),
        (["--keep", "final_proj"], "no tensor matches 'final_proj'"),
        (["--method", "fisher"], "fisher weighs models by statistics of speech; give either --corpus or --statistics"),
        (
            ["--method", "fisher", "--statistics", "a", "b", "--alpha", "1.5", "--extrapolate"],
            "alpha 1.5 is outside [0, 1]; fisher weighs models and cannot extrapolate",
        ),
        (["--corpus", "x"], "linear needs no statistics; leave --corpus and --statistics out"),
        (["--seed", "1"], "--seed is of what is drawn on --corpus; a method that draws takes --set seed=1"),
        (["--checkpoints"], "--checkpoints are a run's; name the run"),
        (["--weight-norm", "both"], "argument --weight-norm: invalid choice"),
    ],
)
def test_wrong_words_are_one_line(words, message, upstream_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["merge", "--pretrained", str(upstream_folder), "--finetuned", str(upstream_folder), *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"speechft: error: {message}") and err.count("\n") == 1 and "; " in err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
