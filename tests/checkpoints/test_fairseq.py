"""Files that fairseq wrote (fairseq/README.md): read without fairseq, the features fairseq computes from them."""

import argparse
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from speechft.checkpoints.convert import convert
from speechft.checkpoints.native import read_native
from speechft.checkpoints.unpickle import Shell, load_untrusted, plain
from speechft.errors import SpeechFTError
from speechft.superb import compat
from speechft.upstreams.load import load_upstream

FOLDER = Path(__file__).parent / "fairseq"
NAMES = ("hubert", "hubert_namespace", "wav2vec2_dictconfig", "wav2vec2_ctc")
SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>", "0", "1", "2", "3", "4", "5"]


def wave():
    return 0.1 * torch.sin(torch.arange(5000) ** 1.3 / 50) + 0.02


@pytest.mark.parametrize("name", NAMES)
def test_features_are_fairseqs(name):
    upstream = load_upstream(FOLDER / f"{name}.pt")
    assert upstream.identity.family == name.partition("_")[0] and upstream.identity.normalize is False
    with torch.inference_mode():
        mine = upstream([wave()]).last[0]
    assert torch.allclose(mine, torch.from_numpy(np.load(FOLDER / "features.npz")[name]), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_s3prls_hub_loads_what_is_made_of_them(name, tmp_path):
    compat.install()
    import s3prl.hub

    file = FOLDER / f"{name}.pt"
    native, folder = convert(file, tmp_path / "n.pt", "s3prl"), convert(file, tmp_path / "hf", "hf")
    entry = s3prl.hub.hubert_custom if name.startswith("hubert") else s3prl.hub.wav2vec2_custom
    with torch.inference_mode():
        theirs, mine = entry(str(native)).eval()([wave()])["hidden_states"], load_upstream(folder)([wave()]).states
    for a, b in zip(mine, theirs, strict=True):
        assert torch.allclose(a, b[:, : a.shape[1]], atol=1e-5)
    assert load_upstream(native).identity.sha256 == load_upstream(folder).identity.sha256


def test_the_head_and_the_labels_come_along():
    for name in ("hubert", "hubert_namespace"):
        read = read_native(FOLDER / f"{name}.pt")
        assert set(read.head) == {"final_proj.weight", "final_proj.bias", "label_embs_concat"}
        assert read.native["dictionaries_symbols"] == [SYMBOLS]
    pretrained = read_native(FOLDER / "wav2vec2_dictconfig.pt")
    assert {"quantizer.vars", "project_q.weight", "final_proj.weight"} <= set(pretrained.head)
    assert not read_native(FOLDER / "wav2vec2_ctc.pt").head


def test_configurations_of_all_ages_say_the_same():
    """Plain containers, omegaconf's, a namespace that has the task's name where the others have its settings."""
    new, old = (read_native(FOLDER / f"{name}.pt") for name in ("hubert", "hubert_namespace"))
    assert new.config == old.config and isinstance(old.native["task_cfg"]["task"], str)
    assert all(torch.equal(new.state[name].half(), old.state[name]) for name in new.state)
    tuned, pretrained = (read_native(FOLDER / f"wav2vec2_{name}.pt").config for name in ("ctc", "dictconfig"))
    rates = {"hidden_dropout", "attention_dropout", "layerdrop"}  # fine-tuning sets these anew
    assert {key for key in tuned if tuned[key] != pretrained[key]} <= rates and tuned.keys() == pretrained.keys()


def test_nothing_of_fairseq_is_built():
    content = load_untrusted(FOLDER / "hubert_namespace.pt")
    number = content["extra_state"]["val_loss"]
    for shell, name in ((content["task_state"]["dictionaries"][0], "Dictionary"), (number, "scalar")):
        assert isinstance(shell, Shell) and type(shell).__name__ == name
    assert plain(content["task_state"])["dictionaries"][0]["symbols"] == SYMBOLS


def saved(path, content):
    torch.save(content, path)
    return path


@pytest.fixture
def namespace():
    """The content of the oldest file, as plain values and a namespace of ours, to be changed."""
    content = load_untrusted(FOLDER / "hubert_namespace.pt")
    symbols = plain(content["task_state"])
    return {"args": argparse.Namespace(**plain(content["args"])), "model": content["model"], "task_state": symbols}


def hub_loads(file, tmp_path):
    compat.install()
    import s3prl.hub

    upstream = s3prl.hub.hubert_custom(str(convert(file, tmp_path / "native.pt", "s3prl"))).eval()
    with torch.inference_mode():
        reference = upstream([wave()])["hidden_states"][-1]
        assert torch.allclose(load_upstream(file)([wave()]).last, reference, atol=1e-5)


@pytest.mark.parametrize("labels", [
    {"pt_dictionaries": {"km": {"symbols": SYMBOLS}}}, {"pt_dictionaries": {"km": None}}, {"dictionaries": []}, {},
    None,
], ids=["by name", "lost", "empty", "none", "no state"])  # fmt: skip
def test_labels_of_other_versions(namespace, labels, tmp_path):
    """fairseq kept them by name for a while; without them s3prl's module must still get the right number."""
    file = saved(tmp_path / "f.pt", {**namespace, "task_state": labels})
    (symbols,) = read_native(file).native["dictionaries_symbols"]
    assert len(symbols) == len(SYMBOLS)
    hub_loads(file, tmp_path)


def test_fine_tuned_before_hydra(namespace, tmp_path):
    """The outer namespace has the pre-trained one inside; of the head the labels alone are left."""
    weights = {f"w2v_encoder.w2v_model.{name}": tensor for name, tensor in namespace["model"].items()
               if not name.startswith("final_proj")}  # fmt: skip
    outer = {"arch": "hubert_ctc", "task": "hubert_pretraining", "w2v_path": "/x.pt", "normalize": True}
    outer = argparse.Namespace(**outer, w2v_args=namespace["args"])
    weights |= {"w2v_encoder.proj.weight": torch.zeros(7, 16), "w2v_encoder.proj.bias": torch.zeros(7)}
    file = saved(tmp_path / "f.pt", {"args": outer, "model": weights})
    assert read_native(file).preprocessor["do_normalize"] is True  # what it was fine-tuned with
    hub_loads(file, tmp_path)


def test_fine_tuned_without_the_inner_configuration(namespace, tmp_path):
    outer = argparse.Namespace(arch="hubert_ctc", task="hubert_pretraining", w2v_path="/x.pt", w2v_args=None)
    with pytest.raises(SpeechFTError, match=r"was fine-tuned \(hubert_ctc\) and does not say from what"):
        read_native(saved(tmp_path / "f.pt", {"args": outer, "model": {}}))


@pytest.mark.parametrize("configuration", [None, 3, "x", ["x"]])
def test_no_configuration(configuration, tmp_path):
    file = saved(tmp_path / "f.pt", {"cfg": configuration, "model": {"a": torch.zeros(1)}})
    with pytest.raises(SpeechFTError, match="holds no configuration"):
        read_native(file)


def test_another_model_of_fairseqs(tmp_path):
    file = saved(tmp_path / "f.pt", {"cfg": {"model": {"_name": "data2vec_audio"}, "task": {}}, "model": {}})
    with pytest.raises(SpeechFTError, match=r"unknown model \(data2vec_audio\); known: hubert, wav2vec2"):
        read_native(file)


@pytest.mark.parametrize(
    "refused", ["posix.system", "subprocess.Popen", "omegaconf.omegaconf.OmegaConf", "fairseq.tasks.Task"]
)
def test_what_is_not_admitted_is_refused_by_its_name(refused, tmp_path):
    """The real file with one more object in its pickle, built from that name."""
    module, _, name = refused.rpartition(".")
    target = tmp_path / "f.pt"
    call = f"c{module}\n{name}\n)R0".encode()  # find it, call it, drop what comes back
    with zipfile.ZipFile(FOLDER / "hubert.pt") as source, zipfile.ZipFile(target, "w") as changed:
        for item in source.namelist():
            data = source.read(item)
            changed.writestr(item, data[:2] + call + data[2:] if item.endswith("data.pkl") else data)
    with pytest.raises(SpeechFTError, match=rf"holds more than weights \({refused}\)"):
        read_native(target)
