"""Slot filling by CTC: characters, with tokens around the values of slots (SUPERB's SF)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from speechft.data.slots import characters, slot_type_f1, slot_units, slot_value_cer, written
from speechft.errors import SpeechFTError
from speechft.tasks.base import label_of
from speechft.tasks.ctc import CtcTask


class SlotFilling(CtcTask):
    """CTC on the units of `data/slots.py`; the slots are those of the training set.

    Args:
        head, hidden, dropout, specaugment: as `CtcTask`.
    """

    higher_is_better = True

    def __init__(self, head: str = "blstm", hidden: int = 256, dropout: float = 0.2,
                 specaugment: dict[str, int] | None = None) -> None:  # fmt: skip
        super().__init__("characters", None, head, hidden, dropout, specaugment)
        self.name, self.metric, self.units = "sf", "slot_type_f1", "slot units"

    def known_units(self) -> set[str]:
        return set(characters())

    def label(self, cut: Any) -> list[str]:
        words = label_of(cut, "text").upper().split()
        slots = label_of(cut, "slots").split()
        try:
            units = slot_units(words, slots)
        except SpeechFTError as error:
            raise SpeechFTError(f"utterance {cut.id} has {error.what}", error.mend) from error
        if not units:
            raise SpeechFTError(f"utterance {cut.id} has no words", "SF needs transcribed speech")
        return units

    def summary(self, scores: Sequence[tuple[list[str], list[str]]]) -> dict[str, float]:
        """`slot_type_f1` and `slot_value_cer`, both in percent."""
        pairs = [(written(said), written(heard)) for said, heard in scores]
        return {"slot_type_f1": 100 * slot_type_f1(pairs), "slot_value_cer": 100 * slot_value_cer(pairs)}
