"""SEW (2109.06870): wav2vec 2.0 whose transformer runs at half the frame rate and is upsampled at the end."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from speechft.errors import UsageError
from speechft.upstreams.base import Identity
from speechft.upstreams.speech_encoder import SpeechEncoder, encoder_parts


class Sew(SpeechEncoder):
    """transformers' `SEWModel` behind the upstream protocol, all hidden states at the frame rate of its CNN.

    The transformer's states have one position for `squeeze_factor` frames; each is repeated so often. To the input of
    the first layer and the outputs of the layers comes one state more, the last: the upsampled output, which is
    transformers' `last_hidden_state`. Frames left over at the end of an utterance (one, where the count is odd) are
    zero in every state, as transformers leaves them in its output.

    Args:
        model: `SEWModel`.
        config: the original `config.json`.
        preprocessor: the original `preprocessor_config.json`.
        identity: what it is.

    Raises:
        UsageError: `padding: s3prl` is asked for; s3prl has no SEW.
    """

    def __init__(self, model: Any, config: dict[str, Any], preprocessor: dict[str, Any], identity: Identity):
        if identity.padding == "s3prl":
            raise UsageError("s3prl has no SEW whose padding could be followed", "leave upstream.padding out")
        super().__init__(model, config, preprocessor, identity)
        self.num_layers = model.config.num_hidden_layers + 2
        self._squeeze = int(model.config.squeeze_factor)
        self._minimum = self._samples_for(self._squeeze)  # of fewer frames there is nothing left to encode

    @property
    def grid(self) -> int:
        return self.hop * self._squeeze

    def project(self, features: Tensor) -> Tensor:
        hidden = self.model.layer_norm(features.transpose(1, 2))
        if self.model.project_features:
            hidden = self.model.feature_projection(hidden)
        return self.model.feature_dropout(hidden)

    def encode(self, hidden: Tensor, frames: Tensor, last_only: bool = False) -> list[Tensor]:
        """The transformer, as `SEWEncoder.forward` computes it for one utterance, on a batch.

        transformers' own attention mask keeps a position of which only a part is speech, which alone does not exist;
        here the same positions are attended to alone and in a batch, unless `padding` is `huggingface`.
        """
        encoder, length = self.model.encoder, hidden.shape[1]
        positions = torch.arange(length, device=hidden.device)
        hidden = (hidden * (positions < frames[:, None])[:, :, None]).transpose(1, 2)
        squeezed = encoder.pool(hidden)
        hidden = (squeezed + encoder.pos_conv_embed(hidden)[..., : squeezed.shape[-1]]).transpose(1, 2)
        hidden = encoder.dropout(encoder.layer_norm(hidden))
        parts = self._squeeze - 1 if self._leaky else 0
        whole = torch.div(frames + parts, self._squeeze, rounding_mode="floor").clamp(max=hidden.shape[1])
        mask = None
        if bool((whole < hidden.shape[1]).any()):
            mask = (torch.arange(hidden.shape[1], device=hidden.device) < whole[:, None])[:, None, None, :]
        states = [hidden]
        for layer in encoder.layers:
            states.append(layer(states[-1], attention_mask=mask))
        spread = [] if last_only else [state.repeat_interleave(self._squeeze, dim=1) for state in states]
        spread.append(encoder.upsample(states[-1]))
        kept = (positions < (whole * self._squeeze)[:, None])[:, :, None]
        return [nn.functional.pad(state, (0, 0, 0, length - state.shape[1])) * kept for state in spread]

    def parts(self) -> dict[str, list[nn.Parameter]]:
        model = self.model
        projection = list(model.layer_norm.parameters())
        if model.project_features:
            projection += model.feature_projection.parameters()
        return self._with_the_rest(
            {
                "cnn": list(model.feature_extractor.parameters()),
                "projection": projection,
                **encoder_parts(model.encoder),
                "upsample": list(model.encoder.upsample.parameters()),
            }
        )
