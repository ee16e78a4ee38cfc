"""A side of `scripts/bench train`, in a process of its own: `round` or `profile` on stdin, a line of JSON on stdout."""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from speechft.bench.stopwatch import Marks, Stopwatch, peak

_LAST = 10**9  # a step that is never reached
_LR = 1e-4
_HUB_NAME = "speechft_bench_train"


class Rounds:
    """A side's seed: another one for each round, so that no figure hangs on which clips the first steps draw."""

    setting: dict[str, Any]
    _done = 0

    def next_seed(self) -> int:
        self._done += 1
        return int(self.setting["seed"]) + self._done


class Ours(Rounds):
    """`speechft train`, as it is: the stable strategy after the unfreeze."""

    def __init__(self, setting: dict[str, Any], data: dict[str, str], folder: Path, kept: bool) -> None:
        self.setting, self.folder, self.to_keep = setting, folder, kept
        device = "cpu" if setting["device"] == "cpu" else "auto"
        self.words = [
            f"upstream.source={data['model']}", "upstream.name=bench", "task=pr", f"task.lexicon={data['lexicon']}",
            "data=librispeech", f"data.root={data['librispeech']}", f"data.batch_size={setting['batch']}",
            "data.dev=[]", "data.buckets=4", f"data.workers={setting['workers']}", "strategy.freeze_fraction=0",
            f"trainer.steps={setting['steps'] + 2}", f"trainer.lr={_LR}", "trainer.warmup=0",
            f"trainer.precision='{setting['precision']}'", f"trainer.device={device}", "trainer.log_every=1000",
            "trainer.checkpoint_every=1000000", f"trainer.threads={setting['threads'] or 'null'}",
            f"trainer.keep_cnn={'disk' if kept else 'null'}",
        ]  # fmt: skip

    def round(self) -> dict[str, float]:
        from speechft.superb.scopes import swapped
        from speechft.train import state
        from speechft.train.loop import Training

        if self.to_keep:
            self._fill()
        marks, original = Marks(self.setting["device"]), Training._accumulate

        def accumulate(*given: Any) -> Any:
            marks.add(0.0)
            result = original(*given)
            marks.audio[-1] = result[2]
            return result

        # nothing is saved: the others are told not to, either
        with swapped(Training, "_accumulate", accumulate), swapped(state, "save", lambda *_: None):
            self._train()
        return marks.figures()

    def _train(self, *more: str) -> None:
        from speechft.train.finetune import finetune

        shutil.rmtree(self.folder, ignore_errors=True)
        finetune([*self.words, f"seed={self.next_seed()}", *more], self.folder, latest=False)

    def _fill(self) -> None:
        """Have the CNN's output of every clip: an epoch and more with the upstream frozen, which costs least."""
        steps = 3 * self.setting["clips"] // self.setting["batch"] // 2
        self._train(f"strategy.freeze_fraction={(steps - 1) / steps}", f"trainer.steps={steps}")
        self.to_keep = False

    def profile(self) -> dict[str, float]:
        """Seconds of all steps by part."""
        from accelerate import Accelerator
        from accelerate.optimizer import AcceleratedOptimizer

        from speechft.data import loader
        from speechft.tasks.ctc import CtcTask
        from speechft.train.loop import Training
        from speechft.upstreams.speech_encoder import SpeechEncoder

        watch = Stopwatch(self.setting["device"])
        with (
            watch.on(loader._Reader, "__getitem__", "reading"),
            watch.on(SpeechEncoder, "features", "CNN"),
            watch.on(SpeechEncoder, "encode", "transformer"),
            watch.on(CtcTask, "step", "head and loss"),
            watch.on(Accelerator, "backward", "backward"),
            watch.on(Accelerator, "clip_grad_norm_", "clipping"),
            watch.on(AcceleratedOptimizer, "step", "optimizer"),
            watch.on(Training, "_accumulate", "rest of the loop"),
        ):
            self._train()
        return watch.seconds


class Theirs(Rounds):
    """s3prl's `Runner`, unchanged, with `upstream_trainable` and the last hidden state, on its PR expert.

    Its HuBERT (`s3prl/upstream/hubert/expert.py`) computes the CNN without gradients and switches layer drop off;
    dropout is as `config.json` has it.
    """

    def __init__(self, setting: dict[str, Any], data: dict[str, str], folder: Path) -> None:
        from speechft.checkpoints.convert import convert
        from speechft.superb import compat
        from speechft.superb.quiet import quiet
        from speechft.superb.settings import compose
        from speechft.superb.tasks import get_task

        compat.install()
        self.setting, self.folder = setting, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.native = convert(Path(data["model"]), folder / "hubert.pt", "s3prl")
        self.task = get_task("pr")
        self.data = data
        recipe = compose([])["superb"]["pr"]
        self.recipe = {
            **recipe, "steps": setting["steps"] + 2, "batch_size": setting["batch"], "accumulate": 1, "lr": _LR,
            "num_workers": setting["workers"],
        }  # fmt: skip
        self.quiet = quiet

    def round(self) -> dict[str, float]:
        import s3prl.hub

        from speechft.superb.reference import namespace

        setting, device = self.setting, self.setting["device"]
        marks = Marks(device)
        setattr(s3prl.hub, _HUB_NAME, lambda *_, **__: s3prl.hub.hubert_custom(str(self.native)))
        work = self.folder / "round"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        with self.task.environment(work), self.quiet(work / "log"):
            from s3prl.downstream.runner import Runner

            config = self.task.config(self.recipe, self.data, work)
            config["runner"].update(log_step=_LAST, eval_step=_LAST, save_step=_LAST,
                                    fp16=setting["precision"] != "no")  # fmt: skip
            arguments = namespace(self.task, _HUB_NAME, work, self.next_seed(), device, None)
            arguments.upstream_trainable, arguments.upstream_feature_selection = True, "last_hidden_state"
            runner = Runner(arguments, config)
            self.task.settle(runner.downstream.model)
            self.task.before_loader(runner.downstream.model, setting["workers"])
            runner.upstream.model.register_forward_pre_hook(
                lambda _, given: marks.add(sum(len(wave) for wave in given[0]) / 16_000)
            )
            runner.train()
        return marks.figures()


class HuggingFace(Rounds):
    """`transformers.Trainer` with `HubertForCTC`, as its speech-recognition recipe has it; masking off, as ours."""

    def __init__(self, setting: dict[str, Any], data: dict[str, str], folder: Path) -> None:
        import soundfile

        self.setting, self.data, self.folder = setting, data, folder
        lexicon = [line.split("\t")[0] for line in Path(data["lexicon"]).read_text(encoding="utf-8").splitlines()]
        units = {word: number for number, word in enumerate(lexicon, 1)}
        self.classes = len(units) + 1
        self.items: list[dict[str, Any]] = []
        for listing in sorted(Path(data["librispeech"], "train-clean-100").rglob("*.trans.txt")):
            for line in listing.read_text(encoding="utf-8").splitlines():
                name, *words = line.split()
                path = str(listing.parent / f"{name}.flac")
                labels = [units[word] for word in words]
                self.items.append({"path": path, "labels": labels, "length": soundfile.info(path).frames})

    def round(self) -> dict[str, float]:
        import soundfile
        from torch.nn.utils.rnn import pad_sequence
        from transformers import HubertForCTC, Trainer, TrainerCallback, TrainingArguments
        from transformers.trainer_pt_utils import LengthGroupedSampler

        setting, marks, seed = self.setting, Marks(self.setting["device"]), self.next_seed()
        torch.manual_seed(seed)
        model = HubertForCTC.from_pretrained(
            self.data["model"], vocab_size=self.classes, pad_token_id=0, apply_spec_augment=False, layerdrop=0.0,
            ctc_zero_infinity=True,
        )  # fmt: skip
        model.freeze_feature_encoder()

        def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
            waves = [torch.from_numpy(soundfile.read(item["path"], dtype="float32")[0]) for item in items]
            labels = [torch.tensor(item["labels"]) for item in items]
            return {
                "input_values": pad_sequence(waves, batch_first=True),
                "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
                "audio_seconds": sum(map(len, waves)) / 16_000,
            }

        seen: list[float] = []

        lengths = [item["length"] for item in self.items]

        class Marked(Trainer):
            def _get_train_sampler(self, *_: Any) -> Any:  # group_by_length, which wants a `datasets.Dataset`
                return LengthGroupedSampler(setting["batch"], lengths=lengths)

            def training_step(self, model: Any, inputs: Any, *given: Any, **named: Any) -> Any:
                seen.append(float(inputs.pop("audio_seconds")))
                return super().training_step(model, inputs, *given, **named)

        class Begin(TrainerCallback):
            def on_step_begin(self, *_: Any, **__: Any) -> None:
                marks.add(0.0)

        arguments = TrainingArguments(
            output_dir=str(self.folder), max_steps=setting["steps"] + 2,
            per_device_train_batch_size=setting["batch"], learning_rate=_LR, max_grad_norm=1.0, weight_decay=0.0,
            remove_unused_columns=False, save_strategy="no", logging_strategy="no", report_to=[],
            disable_tqdm=True, seed=seed,
            use_cpu=setting["device"] == "cpu", bf16=setting["precision"] == "bf16",
            fp16=setting["precision"] == "fp16", dataloader_num_workers=setting["workers"],
        )  # fmt: skip
        trainer: Any = Marked(model=model, args=arguments, train_dataset=self.items, data_collator=collate,
                              callbacks=[Begin()])  # fmt: skip
        trainer.train()
        marks.audio = seen
        return marks.figures()


def _sides(task: dict[str, Any]) -> Any:
    setting, data, folder = task["setting"], task["data"], Path(task["folder"])
    makers: dict[str, Callable[[], Any]] = {
        "speechft": lambda: Ours(setting, data, folder, kept=False),
        "speechft_kept": lambda: Ours(setting, data, folder, kept=True),
        "s3prl": lambda: Theirs(setting, data, folder),
        "transformers": lambda: HuggingFace(setting, data, folder),
    }
    return makers[task["side"]]()


def main() -> None:
    """Answer until stdin is closed. Whatever libraries print goes to the log."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    task = json.loads(sys.argv[1])
    device = task["setting"]["device"]
    if task["setting"]["threads"]:
        torch.set_num_threads(task["setting"]["threads"])
    side = _sides(task)
    for line in sys.stdin:
        value: dict[str, float] = getattr(side, line.strip())()
        if line.strip() == "round":
            value["peak_bytes"] = peak(device)
        gc.collect()  # while it waits it holds nothing that the others could use
        if device.startswith("cuda"):
            torch.cuda.empty_cache()
        answers.write(json.dumps(value) + "\n")


if __name__ == "__main__":
    main()
