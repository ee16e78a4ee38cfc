"""`--engine s3prl`: s3prl's own `Runner`, unchanged, in this process, with our upstream behind it."""

from __future__ import annotations

import copy
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from speechft.errors import SpeechFTError
from speechft.files import read_json, write_json
from speechft.superb.fast import Outcome
from speechft.superb.records import Scores, layer_weights, seed_all
from speechft.superb.tasks.base import Task

_DEV = "dev-best.json"


def namespace(task: Task, hub_name: str, expdir: Path, seed: int, device: str, init_ckpt: Path | None) -> Namespace:
    """The arguments `s3prl/run_downstream.py` would have parsed (only plain values: they go into checkpoints)."""
    return Namespace(
        mode="train",
        upstream=hub_name,
        upstream_ckpt=None,
        upstream_model_config=None,
        upstream_refresh=False,
        upstream_trainable=False,
        upstream_feature_selection="hidden_states",
        upstream_layer_selection=None,
        upstream_feature_normalize=False,
        downstream=task.folder,
        downstream_variant=None,
        expdir=str(expdir),
        evaluate_split=task.expert_split("test"),
        init_ckpt=str(init_ckpt) if init_ckpt else None,
        seed=seed,
        device=device,
        local_rank=None,
        push_to_hf_hub=False,
        hub="torch",
    )


class ReferenceRun:
    """One task, one upstream, computed by s3prl throughout.

    Args:
        task: what is evaluated.
        config: s3prl's configuration (`Task.config`).
        hub_name: the upstream's attribute of `s3prl.hub` (`bridge.registered`).
        expdir: s3prl's folder for checkpoints and logs; `states-*.ckpt` in it are resumed.
        seed, device: as for s3prl.
        num_workers: of the data loaders.
        progress: called with steps done and in all, at every logging step.
    """

    def __init__(
        self,
        task: Task,
        config: Mapping[str, Any],
        hub_name: str,
        expdir: Path,
        seed: int,
        device: str,
        num_workers: int = 0,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.task, self.config, self.hub_name = task, config, hub_name
        self.expdir, self.seed, self.device = expdir, seed, device
        self.num_workers, self.progress = num_workers, progress
        self.dev: dict[str, float] = {}
        self.test: dict[str, float] = {}
        self.test_records: dict[str, list[Any]] = {}
        self.expert: Any = None
        expdir.mkdir(parents=True, exist_ok=True)

    def runner(self, init_ckpt: Path | None = None) -> Any:
        """A `Runner` whose expert reports here."""
        from s3prl.downstream.runner import Runner

        seed_all(self.seed)
        args = namespace(self.task, self.hub_name, self.expdir, self.seed, self.device, init_ckpt)
        runner = Runner(args, copy.deepcopy(dict(self.config)))
        expert = runner.downstream.model
        self.task.settle(expert)
        self.expert = expert
        self._listen(expert)
        return runner

    def _listen(self, expert: Any) -> None:
        log_records, get_dataloader = expert.log_records, expert.get_dataloader
        total = self.config["runner"]["total_steps"]
        dev, test = map(self.task.expert_split, ("dev", "test"))

        def report(split: str, records: Any, logger: Any, global_step: int, **kwargs: Any) -> Any:
            scores = Scores(self.task.name, logger)
            names = log_records(split, records=records, logger=scores, global_step=global_step, **kwargs)
            if split == test:
                self.test, self.test_records = self.task.metrics(scores, "test"), dict(records)
            elif split == dev:
                found = {**self.task.metrics(scores, "dev"), "step": global_step}
                if self.task.best_checkpoint in (names or []):
                    write_json(self.expdir / _DEV, found)
                    self.dev = found
                elif not (self.expdir / _DEV).is_file():
                    self.dev = found  # of the state that is tested where no score was ever a best one
            elif split == "train":
                self.progress(global_step, total)
            return names

        def loader(split: str, *args: Any, **kwargs: Any) -> Any:
            self.task.before_loader(expert, self.num_workers)
            made = get_dataloader(split, *args, **kwargs)
            if len(made) == 0:  # the runner would wait for a batch for ever
                raise SpeechFTError(
                    f"the {split} set of {self.task.name} holds fewer items than one batch",
                    f"lower superb.{self.task.name}.batch_size",
                )
            return made

        expert.log_records, expert.get_dataloader = report, loader

    def run(self) -> Outcome:
        """Train (or go on from the newest checkpoint), then test the best dev state."""
        total = self.config["runner"]["total_steps"]
        states = self._states()
        runner = self.runner(states[-1] if states else None)
        if int(runner.init_ckpt.get("Step", 0)) < total:
            runner.train()
        if self.task.selected_on == "test":
            return self._best_of_states()
        best = self.expdir / self.task.best_checkpoint
        if best.is_file():
            runner = self.runner(best)
            self.dev = read_json(self.expdir / _DEV)  # the best one may be of before an interruption
        metrics = self._test(runner)
        return Outcome(metrics, self.dev, self.test_records, layer_weights(runner.featurizer.model), total)

    def _test(self, runner: Any) -> dict[str, float]:
        runner.evaluate()
        return self.task.final(self.expert, self.test, self.test_records)

    def _states(self) -> list[Path]:
        return sorted(self.expdir.glob("states-*.ckpt"), key=lambda path: int(path.stem.split("-")[1]))

    def _best_of_states(self) -> Outcome:
        """Test every state that was kept (as s3prl's sv_voxceleb1/test_expdir.sh does), take the best."""
        outcome = None
        for path in self._states():
            runner = self.runner(path)
            metrics = self._test(runner)
            if outcome is None or self.task.is_best([], metrics, outcome.metrics):
                dev = {**metrics, "step": int(runner.init_ckpt["Step"])}
                weights = layer_weights(runner.featurizer.model)
                outcome = Outcome(metrics, dev, self.test_records, weights, self.config["runner"]["total_steps"])
        assert outcome is not None  # a state is saved where one is to be scored, and once at least
        return outcome
