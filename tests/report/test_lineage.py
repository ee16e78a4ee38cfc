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


def test_seeds_are_of_one_family_however_they_were_computed(tmp_path):
    """Device, logging and the like do not tell runs apart; a rate does."""
    settings = {
        "0": "{lr: 0.001, log_every: 10, device: cpu}", "1": "{lr: 0.001, device: cuda, keep_cnn: disk}",
        "2": "{lr: 0.002, log_every: 10, device: cpu}",
    }  # fmt: skip
    lineages, family = Lineages(), {}
    for seed, trainer in settings.items():
        run = write_run(tmp_path / seed, "base", f"tuned{seed}", {0.25: f"a{seed}"})
        data = f"{{workers: {seed}, batch_size: 8}}"
        (run / "config.yaml").write_text(f"seed: {seed}\ntrainer: {trainer}\ndata: {data}\nname: run{seed}\n")
        lineages.look_at(run)
        family[seed] = lineages.of({"sha256": f"a{seed}"}).family
    assert family["0"] == family["1"] != family["2"]
