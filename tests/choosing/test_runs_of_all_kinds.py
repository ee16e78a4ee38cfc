"""The choice of α for runs that went on from another one, left out bad utterances, or trained several tasks at once."""

import pytest
import torch
from safetensors.torch import load_file

from speechft.choosing.candidates import Candidates
from speechft.choosing.drift import Drift
from speechft.choosing.head import TrainedHead
from speechft.config.compose import read_config
from speechft.files import read_json
from speechft.train.finetune import finetune
from speechft.train.metrics import read_metrics
from speechft.upstreams.load import load_upstream

CPU = torch.device("cpu")


def test_a_run_after_another_is_compared_with_what_the_first_started_from(trained, train_words, tmp_path):
    """Merging goes back to θ0, so α = 0 is θ0 too, and not what the run before it ended with."""
    run = finetune([*train_words, f"after={trained.folder}", "trainer.steps=4"], tmp_path / "second", latest=False)
    config, start = read_config(run.config), read_json(trained.pretrained)["sha256"]
    assert load_upstream(config["upstream"]).identity.sha256 == load_upstream(trained.finetuned).identity.sha256
    candidates = Candidates.of_run(run, config, {"check": False})
    assert candidates.identity["parents"][0] == start
    with candidates.at(0.0, tmp_path / "scratch") as upstream:
        assert upstream.identity.sha256 == start and upstream.identity.name == "tiny"
        scores, _ = Drift(run, config, refit=0).score(0.0, upstream)
    assert scores["similarity"] == pytest.approx(1.0, abs=1e-9)


def test_what_a_run_skipped_is_skipped_again(train_words, librispeech, tmp_path):
    """An utterance whose word the lexicon lacks: training left it out, so must whatever trains its head again."""
    lexicon = tmp_path / "lexicon.txt"
    lines = (librispeech / "lexicon.txt").read_text().splitlines()
    lexicon.write_text("".join(f"{line}\n" for line in lines if not line.startswith("SIX")))
    words = [*train_words, f"task.lexicon={lexicon}", "data.skip_bad=true", "trainer.steps=4"]
    run = finetune(words, tmp_path / "run", latest=False)
    assert "SIX" in (run.folder / "skipped.tsv").read_text()
    config = read_config(run.config)
    head = TrainedHead(run, config, load_upstream(config["upstream"]), CPU)
    last = [line for line in read_metrics(run.metrics) if "dev_per" in line][-1]
    assert head.score(load_upstream(run.finetuned)) == {"per": last["dev_per"]}


def test_of_several_tasks_at_once(train_words, librispeech, tmp_path):
    words = [word for word in train_words if not word.startswith("task.")]
    tasks = f"{{pr: {{lexicon: {librispeech}/lexicon.txt, hidden: 16}}, asr: {{head: linear, hidden: 16}}}}"
    run = finetune([*words, "task=joint", f"task.tasks={tasks}", "trainer.steps=4"], tmp_path / "run", latest=False)
    config = read_config(run.config)
    head = TrainedHead(run, config, load_upstream(config["upstream"]), CPU)
    last = [line for line in read_metrics(run.metrics) if "dev_pr_per" in line][-1]
    tuned = load_upstream(run.finetuned)
    assert head.score(tuned)["pr_per"] == last["dev_pr_per"]
    assert head.score(tuned, refit=3) == head.score(tuned, refit=3)
    assert load_file(run.finetuned / "model.safetensors")


@pytest.mark.parametrize("more", [["trainer.finetuned=best"], ["trainer.ema=0.9"]], ids=["best", "average"])
def test_the_head_is_that_of_the_result(more, train_words, tmp_path):
    """Neither the newest where the best was asked for, nor the trained one where the average was: the run's own
    evaluation of what became its result says so."""
    words = [*train_words, "trainer.steps=16", "trainer.lr=5e-3", "trainer.eval_every=1", "trainer.checkpoint_every=1",
             *more]  # fmt: skip
    run = finetune(words, tmp_path / "run", latest=False)
    lines, config = read_metrics(run.metrics), read_config(run.config)
    chosen = lines[-1]["finetuned_step"]
    head = TrainedHead(run, config, load_upstream(config["upstream"]), CPU)
    (expected,) = [line["dev_per"] for line in lines if line["step"] == chosen and "dev_per" in line]
    assert head.score(load_upstream(run.finetuned)) == {"per": expected}
    assert head.identity(0)["head"] == lines[-1]["head_sha256"]
    if "best" in more[0]:
        assert chosen < 16
