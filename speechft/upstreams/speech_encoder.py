"""HuBERT, wav2vec 2.0, WavLM, UniSpeech-SAT, data2vec, SEW: a CNN over the waveform, a projection, a transformer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from speechft.checkpoints.computing import computing_hash
from speechft.checkpoints.folder import Checkpoint, of_upstream
from speechft.checkpoints.hashing import weights_sha256
from speechft.checkpoints.parts import norm_last
from speechft.errors import SpeechFTError, UsageError
from speechft.upstreams.base import Hidden, Identity, Upstream, pad_waveforms
from speechft.upstreams.convolutions import convolve, keep_narrow_exact
from speechft.upstreams.dropout import cheapen, register
from speechft.upstreams.fill import drawn, filled
from speechft.upstreams.kept_cnn import KeptCnn
from speechft.upstreams.padded import attended, stacked
from speechft.upstreams.wavlm import call_projections

FAMILIES = ("hubert", "wav2vec2", "wavlm", "unispeech-sat", "data2vec-audio", "sew")


class SpeechEncoder(Upstream):
    """A transformers model behind the upstream protocol.

    Masking and layer drop, which transformers applies in `train()`, never happen here: only the submodules are called,
    and layer drop is switched off (method.md step 1: "layer drop and masking are off"). Dropout stays on in `train()`.

    Args:
        model: `HubertModel`, `Wav2Vec2Model`, `WavLMModel`, `UniSpeechSatModel` or `Data2VecAudioModel`.
        config: the original `config.json`, written back unchanged by `checkpoint()`.
        preprocessor: the original `preprocessor_config.json`.
        identity: what it is; its `padding` (`padded.py`) is obeyed.
    """

    trainable = True

    def __init__(self, model: Any, config: dict[str, Any], preprocessor: dict[str, Any], identity: Identity):
        super().__init__()
        self.model = model
        self.original_config = config
        self.preprocessor = preprocessor
        self.identity = identity
        self.dim = model.config.hidden_size
        self.num_layers = model.config.num_hidden_layers + 1
        strides = list(model.config.conv_stride)
        self._kernels = list(zip(model.config.conv_kernel, strides, strict=True))
        self.hop = int(torch.tensor(strides).prod())
        self._minimum = self._samples_for(1)
        self.first_centre = self._minimum / 32_000
        self._leaky = identity.padding != "own"
        self._group_norm = getattr(model.config, "feat_extract_norm", "layer") == "group" and not self._leaky
        self._kept: KeptCnn | None = None

    @property
    def layers(self) -> Sequence[nn.Module]:
        return list(self.model.encoder.layers)

    def _samples_for(self, frames: int) -> int:
        samples = frames
        for kernel, stride in reversed(self._kernels):
            samples = (samples - 1) * stride + kernel
        return samples

    def frame_counts(self, samples: Tensor) -> Tensor:
        frames = samples.clamp(min=self._minimum)
        for kernel, stride in self._kernels:
            frames = torch.div(frames - kernel, stride, rounding_mode="floor") + 1
        return frames

    def cnn(self, waves: Tensor, lengths: Tensor) -> Tensor:
        """The convolutions alone: `[batch, samples]` -> `[batch, channels, frames]`.

        Convolutions without padding never mix valid and padded positions, but the group norm of base models averages
        over time, padding included (method.md, traps). Here it averages over each waveform's own positions, so a
        waveform gives the same features alone and in a batch.
        """
        layers = self.model.feature_extractor.conv_layers
        return convolve(layers, waves, lengths, self._kernels[0] if self._group_norm else None)

    def project(self, features: Tensor) -> Tensor:
        """CNN output `[batch, channels, frames]` to transformer input `[batch, frames, dim]`."""
        projected = self.model.feature_projection(features.transpose(1, 2))
        return projected[0] if isinstance(projected, tuple) else projected

    def encode(self, hidden: Tensor, frames: Tensor, last_only: bool = False) -> list[Tensor]:
        """The transformer: `[batch, frames, dim]`, valid `frames` `[batch]` -> states, each `[batch, frames, dim]`."""
        return encoder_states(self.model.encoder, hidden, frames, last_only, self._leaky)

    def features(self, waveforms: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """What the CNN makes of waveforms: `[batch, channels, frames]`, and their lengths in samples, `[batch]`.

        Without gradients where it is frozen; looked up where it is kept (`keep_cnn`).
        """
        if self._kept is not None and self._kept.covers(waveforms):
            lengths = torch.tensor([wave.numel() for wave in waveforms], device=waveforms[0].device)
            return self._kept(waveforms), lengths.clamp(min=self._minimum)
        waves, lengths = stacked(waveforms, self._minimum, self.identity.normalize, self.identity.padding)
        trains = torch.is_grad_enabled() and any(p.requires_grad for p in self.model.feature_extractor.parameters())
        with torch.set_grad_enabled(trains):
            return self.cnn(waves, lengths), lengths

    def keep_cnn(self, place: str, budget: float) -> KeptCnn:
        """From now on keep what the CNN, which must stay as it is, gives for waveforms announced to the result.

        Args:
            place, budget: see `KeptCnn`.

        Raises:
            UsageError: with another padding than `own` a waveform has no output of its own.
        """
        if self._leaky:
            raise UsageError(
                f"with upstream.padding={self.identity.padding} the CNN's output depends on the batch",
                "leave out keep_cnn",
            )

        def alone(wave: Tensor) -> Tensor:
            with torch.no_grad():
                return self.cnn(*pad_waveforms([wave], self._minimum, self.identity.normalize))[0]

        self._kept = KeptCnn(alone, self.cnn_key(), place, budget)
        return self._kept

    def cnn_key(self) -> str:
        weights = weights_sha256(self.model.feature_extractor.state_dict())
        scaled = "norm" if self.identity.normalize else "raw"
        return f"{self.identity.family}-{scaled}-{weights}-{self.identity.computing}"

    def forward(self, waveforms: Sequence[Tensor], last_only: bool = False) -> Hidden:
        return self.after_cnn(*self.features(waveforms), last_only)

    def after_cnn(self, features: Tensor, lengths: Tensor, last_only: bool = False) -> Hidden:
        """The rest of `forward`: what `features` gave, its own or that of an upstream with the same CNN."""
        frames = self.frame_counts(lengths)
        identity = self.identity
        heard = attended(lengths, frames, features.shape[-1], identity.padding, identity.family)
        states = self.encode(self.project(features), heard, last_only)
        return Hidden([state.float() for state in states], frames)

    def parts(self) -> dict[str, list[nn.Parameter]]:
        model = self.model
        return self._with_the_rest(
            {
                "cnn": list(model.feature_extractor.parameters()),
                "projection": list(model.feature_projection.parameters()),
                **encoder_parts(model.encoder),
            }
        )

    def _with_the_rest(self, parts: dict[str, list[nn.Parameter]]) -> dict[str, list[nn.Parameter]]:
        named = {id(parameter) for group in parts.values() for parameter in group}
        rest = [parameter for parameter in self.model.parameters() if id(parameter) not in named]
        if rest:
            parts["mask_embedding"] = rest
        return parts

    def checkpoint(self) -> Checkpoint:
        """The present weights with the configuration they came with."""
        state = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
        return Checkpoint(of_upstream(self.original_config), dict(self.preprocessor), state)


def encoder_states(
    encoder: Any, hidden: Tensor, frames: Tensor, last_only: bool = False, leaky: bool = False
) -> list[Tensor]:
    """Run one of transformers' speech encoders and keep what goes into each layer.

    Args:
        encoder: with `layers` and `pos_conv_embed`.
        hidden: `[batch, frames, dim]`, the projected features.
        frames: `[batch]` int64, how many are valid.
        last_only: keep only the last state.
        leaky: let data2vec's positions hear padding, as transformers and s3prl do.

    Returns:
        the states, each `[batch, frames, dim]`.
    """
    states: list[Tensor] = []
    hooks: list[Any] = []
    if not last_only:

        def keep(_module: nn.Module, args: tuple, kwargs: dict) -> None:
            states.append(args[0] if args else kwargs["hidden_states"])

        hooks = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in encoder.layers]
    mask = torch.arange(hidden.shape[1], device=hidden.device)[None, :] < frames[:, None]
    padded = bool((frames < hidden.shape[1]).any())
    if padded and not leaky:
        # data2vec's positions are a stack of convolutions: what one puts into the padding, the next would read.
        for layer in getattr(encoder.pos_conv_embed, "layers", ()):
            hooks.append(layer.register_forward_hook(lambda _module, _args, output: output * mask[:, None]))
    try:
        # transformers zeroes padded positions in place, so it gets a tensor of its own; when nothing is padded, no mask
        # lets attention take its fastest kernel.
        output = encoder(hidden.clone(), attention_mask=mask if padded else None)
    finally:
        for hook in hooks:
            hook.remove()
    return [*states, output.last_hidden_state]


def encoder_parts(encoder: Any) -> dict[str, list[nn.Parameter]]:
    """The parts of one of transformers' speech encoders: `position`, `layers.0` ..., and `layer_norm` where that comes
    after the layers (`checkpoints/parts.py`)."""
    norm, parts = list(encoder.layer_norm.parameters()), {"position": list(encoder.pos_conv_embed.parameters())}
    last = norm_last(vars(encoder.config))
    parts["position"] += [] if last else norm
    for index, layer in enumerate(encoder.layers):
        parts[f"layers.{index}"] = list(layer.parameters())
    return {**parts, **({"layer_norm": norm} if last else {})}


def build(
    checkpoint: Checkpoint, name: str, source: str, normalize: bool | None, random_seed: int | None,
    dropout: float | None = None, padding: str = "own",
) -> SpeechEncoder:  # fmt: skip
    """Build the model of a checkpoint and fill it strictly.

    Args:
        checkpoint: configuration and weights; the weights are ignored when `random_seed` is given.
        name, source: for the identity.
        normalize: None takes what the checkpoint says.
        random_seed: draw fresh weights instead (a baseline that shows what pre-training is worth).
        dropout: replaces every dropout rate of the transformer while it is used; `config.json` keeps its own.
        padding: one of `padded.PADDINGS`; `huggingface` becomes `huggingface-unmasked` where the
            checkpoint's processor makes no attention mask (`return_attention_mask`).

    Raises:
        SpeechFTError: unknown architecture; missing, unexpected or wrongly shaped tensors.
    """
    import transformers

    family = checkpoint.config.get("model_type")
    classes: dict[str, tuple[Any, Any]] = {
        "hubert": (transformers.HubertConfig, transformers.HubertModel),
        "wav2vec2": (transformers.Wav2Vec2Config, transformers.Wav2Vec2Model),
        "wavlm": (transformers.WavLMConfig, transformers.WavLMModel),
        "unispeech-sat": (transformers.UniSpeechSatConfig, transformers.UniSpeechSatModel),
        "data2vec-audio": (transformers.Data2VecAudioConfig, transformers.Data2VecAudioModel),
        "sew": (transformers.SEWConfig, transformers.SEWModel),
    }
    if family not in classes:
        raise SpeechFTError(
            f"{source} is of an unknown architecture ({family})",
            f"known: {', '.join((*FAMILIES, 'decoar2', 'whisper'))}",
        )
    config_class, model_class = classes[family]
    rates = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout")
    changed = {} if dropout is None else dict.fromkeys(rates, dropout)
    config = config_class.from_dict({**checkpoint.config, "layerdrop": 0.0, **changed})
    if family != "wavlm":  # WavLM's gated position bias has one implementation
        config._attn_implementation = register()
    if random_seed is None and "masked_spec_embed" not in checkpoint.state:
        config.mask_time_prob = config.mask_feature_prob = 0.0  # no such weight in the file, so none in the model
    elif random_seed is not None or "masked_spec_embed" in checkpoint.state:
        config.mask_time_prob = max(config.mask_time_prob, 0.05)
    if random_seed is None:
        model = filled(lambda: model_class(config), checkpoint.state, source, copy=checkpoint.mapped is None)
    else:
        model = drawn(lambda: model_class(config), random_seed)
    keep_narrow_exact(model)
    cheapen(model)
    call_projections(model)
    normalize = bool(checkpoint.preprocessor.get("do_normalize", True)) if normalize is None else normalize
    preprocessor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1, "padding_side": "right",
        "padding_value": 0.0, "return_attention_mask": True, "sampling_rate": 16000,
        **checkpoint.preprocessor, "do_normalize": normalize,
    }  # fmt: skip
    if padding == "huggingface" and not preprocessor["return_attention_mask"]:
        padding = "huggingface-unmasked"
    sha256 = checkpoint.sha256 or weights_sha256(model.state_dict())
    identity = Identity(name, str(family), source, normalize, sha256, padding, computing=computing_hash(model.config))
    if family == "sew":
        from speechft.upstreams.sew import Sew

        return Sew(model, checkpoint.config, preprocessor, identity).eval()
    return SpeechEncoder(model, checkpoint.config, preprocessor, identity).eval()
