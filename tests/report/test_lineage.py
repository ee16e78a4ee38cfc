"""Which merged models are of one family, so that their α make one curve."""

import json

from results import write_run

from speechft.report.lineage import Lineages


def test_a_merge_done_otherwise_is_another_family(tmp_path):
    run = write_run(tmp_path / "run", "base", "tuned", {0.25: "a", 0.5: "b", 0.75: "c", 0.1: "d", 0.2: "e", 0.3: "f"})

    def change(alpha, **more):
        file = run / "merged" / f"alpha-{alpha:g}" / "merge.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **more}))

    change(0.5, parameters={}, choices={})  # a plain one, as it is written today
    change(0.75, parameters={}, choices={"keep": ["cnn"]})
    change(0.1, method="dare_linear", parameters={"density": 0.5, "seed": 0})
    change(0.2, method="dare_linear", parameters={"density": 0.5, "seed": 1})
    change(0.3, method="dare_linear", parameters={"density": 0.2, "seed": 0})
    lineages = Lineages()
    lineages.look_at(run)
    family = {weights: lineages.of({"sha256": weights}).family for weights in ("a", "b", "c", "d", "e", "f", "tuned")}
    assert family["a"] == family["b"] == family["tuned"] and family["d"] == family["e"]
    assert len({family[weights] for weights in "acdf"}) == 4
