"""The upstream of docs/own_upstream.md on SUPERB: both engines hear it, and other code is another upstream."""

import pytest
from documented import block
from listener import Listener

from speechft.superb.evaluate import evaluate
from speechft.upstreams.load import load_upstream


@pytest.fixture
def apc(tmp_path):
    (tmp_path / "apc.py").write_text(block("own_upstream.md"))
    return {"name": "apc", "kind": f"{tmp_path}/apc.py:Apc", "source": None, "dim": 24, "depth": 2}


@pytest.mark.parametrize("engine", ["fast", "s3prl"])
def test_it_is_scored_like_any_other(engine, apc, configuration):
    upstream = load_upstream(apc)
    results = evaluate([upstream], ["sid", "pr"], engine, cfg=configuration(), progress=Listener())
    for result in results:
        assert result["upstream"] == upstream.identity.as_dict() and len(result["layer_weights"]) == 3
        assert result["engine"] == engine
    folder = evaluate({"made": upstream.identity.source}, ["sid"], engine, cfg=configuration(), progress=Listener())
    assert folder[0]["metrics"] == results[0]["metrics"]


def test_features_of_other_code_are_not_taken_for_its_own(apc, configuration, tmp_path):
    cfg = configuration()
    evaluate({"one": load_upstream(apc)}, ["sid"], cfg=cfg, progress=Listener())
    sets = len(list((tmp_path / "store" / "pooled").iterdir()))
    file = tmp_path / "apc.py"
    file.write_text(file.read_text().replace("1e-6", "1e-3"))
    evaluate({"two": load_upstream(apc)}, ["sid"], cfg=cfg, progress=Listener())
    assert len(list((tmp_path / "store" / "pooled").iterdir())) == 2 * sets
