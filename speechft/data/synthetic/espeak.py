"""espeak-ng in this process: text and a voice in, samples and phonemes out (ctypes over ``espeakng_loader``'s library).

Three things about the library shape this module. It keeps state between calls that no call resets (noise and phase of
the wave generator), so the same text sounds different the second time: the library is unloaded and loaded again before
every utterance, which costs under a millisecond and makes an utterance depend on nothing but its own arguments. Asked
for a voice that it does not know, it silently keeps another: every return code is checked, and so is the name of the
voice that is in force afterwards. And it reads voices from files only: a voice is written to a short-lived one.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import tempfile
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechft.errors import MissingExtraError, SpeechFTError

SAMPLE_RATE = 22_050
"""Samples a second that espeak-ng speaks with."""

REFERENCE_VOICE = (
    "language en-us",
    "phonemes en-us",
    "dictrules 3 6",
    "stressLength 140 120 190 170 0 0 255 300",
    "stressAmp 17 16 19 19 19 19 21 19",
    "replace 03 I i",
    "replace 03 I2 i",
)
"""American English as espeak-ng's own voice has it; the lines of a speaker follow these and override them."""

_SYNCHRONOUS = 2  # samples are handed over before the call returns
_PHONEME_EVENTS, _DO_NOT_EXIT = 0x0001, 0x8000
_UTF8 = 1
_RATE, _VOLUME, _PITCH, _RANGE, _WORD_GAP = 1, 2, 3, 4, 7
_EVENT_END, _EVENT_PHONEME = 0, 7
_STRESS_MARKS = "',%=|"
_LONGEST_PATH = 150  # the library copies a voice's path into a buffer of fixed size, unchecked


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


class _Voice(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("spare_byte", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class Speech:
    """What was said.

    Args:
        samples: ``[samples]`` int16 at ``SAMPLE_RATE``.
        phonemes: espeak-ng's mnemonics without stress marks, in order; pauses are left out.
        starts: where each phoneme begins, in samples.
    """

    samples: np.ndarray
    phonemes: tuple[str, ...]
    starts: tuple[int, ...]


def _package() -> Any:
    try:
        import espeakng_loader
    except ImportError as error:
        raise MissingExtraError("espeakng-loader", "demo", "the synthetic corpus") from error
    return espeakng_loader


def require_espeak() -> None:
    """Raise unless espeak-ng can be used.

    Raises:
        MissingExtraError: the package ``espeakng-loader`` is not installed.
        SpeechFTError: its library does not load on this machine.
    """
    speak("a")


class _Espeak:
    """The library as this process has it loaded. There is one per process: the library's state is global."""

    def __init__(self) -> None:
        package = _package()
        self.library_path = str(package.get_library_path())
        self.data_path = str(package.get_data_path()).encode()
        self.library: Any = None
        self.chunks: list[bytes] = []
        self.phonemes: list[str] = []
        self.starts: list[int] = []
        # The library holds a bare pointer to this: it has to live as long as the library does.
        self.callback = _Callback(self._receive)

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self.chunks.append(ctypes.string_at(samples, 2 * count))
        index = 0
        while events[index].type != _EVENT_END:
            event = events[index]
            if event.type == _EVENT_PHONEME:
                mnemonic = event.id.string.decode("utf-8", "replace").lstrip(_STRESS_MARKS)
                if mnemonic and not mnemonic.startswith("_"):
                    self.phonemes.append(mnemonic)
                    self.starts.append(event.sample)
            index += 1
        return 0

    def reload(self) -> None:
        """Load the library as if for the first time, so that nothing said before can be heard."""
        import _ctypes

        if self.library is not None:
            _check(self.library.espeak_Terminate(), "ending")
            handle, self.library = self.library._handle, None
            if os.name == "nt":
                _ctypes.FreeLibrary(handle)  # type: ignore[attr-defined,unused-ignore]
            else:
                _ctypes.dlclose(handle)
        try:
            library = ctypes.CDLL(self.library_path)
        except OSError as error:
            raise SpeechFTError(
                f"espeak-ng's library does not load ({error})", "pip install --force-reinstall espeakng-loader"
            ) from error
        library.espeak_Initialize.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int)
        library.espeak_SetVoiceByFile.argtypes = (ctypes.c_char_p,)
        library.espeak_ng_SetRandSeed.argtypes = (ctypes.c_long,)
        library.espeak_GetCurrentVoice.restype = ctypes.POINTER(_Voice)
        library.espeak_Synth.argtypes = (
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_void_p,
        )
        rate = library.espeak_Initialize(_SYNCHRONOUS, 0, self.data_path, _PHONEME_EVENTS | _DO_NOT_EXIT)
        if rate != SAMPLE_RATE:
            raise SpeechFTError(
                f"espeak-ng did not start (it answered {rate}, not its rate of {SAMPLE_RATE})",
                "pip install --force-reinstall espeakng-loader",
            )
        library.espeak_SetSynthCallback(self.callback)
        self.library = library

    def set_voice(self, lines: tuple[str, ...]) -> None:
        text = "\n".join((*REFERENCE_VOICE, *lines)) + "\n"
        name = "speechft-" + hashlib.sha256(text.encode()).hexdigest()[:12]
        descriptor, path = tempfile.mkstemp(prefix="speechft-voice-")
        try:
            with os.fdopen(descriptor, "w", encoding="ascii", newline="\n") as file:
                file.write(f"name {name}\n{text}")
            if len(os.fsencode(path)) > _LONGEST_PATH:
                raise SpeechFTError(f"the temporary folder's path is too long for espeak-ng ({path})", "set TMPDIR")
            _check(self.library.espeak_SetVoiceByFile(os.fsencode(path)), "setting the voice")
        finally:
            Path(path).unlink(missing_ok=True)
        voice = self.library.espeak_GetCurrentVoice()
        if not voice or voice.contents.name != name.encode():
            raise SpeechFTError(
                "espeak-ng kept another voice than the one asked for", "pip install 'espeakng-loader>=0.2.4'"
            )

    def speak(self, text: str, lines: tuple[str, ...], rate: int, volume: int, word_gap: int, seed: int) -> Speech:
        self.reload()
        self.set_voice(lines)
        _check(self.library.espeak_ng_SetRandSeed(seed), "seeding")
        for parameter, value in (
            (_RATE, rate),
            (_VOLUME, volume),
            (_PITCH, 50),  # the middle: pitch and its range are lines of the voice
            (_RANGE, 50),
            (_WORD_GAP, word_gap),
        ):
            _check(self.library.espeak_SetParameter(parameter, value, 0), f"setting parameter {parameter} to {value}")
        self.chunks, self.phonemes, self.starts = [], [], []
        data = text.encode("utf-8") + b"\0"
        _check(self.library.espeak_Synth(data, len(data), 0, 1, 0, _UTF8, None, None), "speaking")
        samples = np.frombuffer(b"".join(self.chunks), dtype=np.int16)
        return Speech(samples, tuple(self.phonemes), tuple(self.starts))


def _check(status: int, doing: str) -> None:
    if status != 0:
        raise SpeechFTError(f"espeak-ng failed while {doing} (status {status})", "pip install 'espeakng-loader>=0.2.4'")


_LOCK = threading.Lock()
_ESPEAK: _Espeak | None = None


def _shared() -> _Espeak:
    global _ESPEAK
    if _ESPEAK is None:
        espeak = _Espeak()
        probe = ("pitch 110 150", "roughness 3")
        first = espeak.speak("no she is here", (), 175, 80, 0, 1).samples.tobytes()
        espeak.speak("seven", probe, 220, 80, 2, 5)
        if espeak.speak("no she is here", (), 175, 80, 0, 1).samples.tobytes() != first:
            warnings.warn(
                "this system does not unload espeak-ng's library, so the synthetic corpus will differ a little from "
                "one making to the next",
                stacklevel=3,
            )
        _ESPEAK = espeak
    return _ESPEAK


def speak(
    text: str, voice: tuple[str, ...] = (), rate: int = 175, volume: int = 80, word_gap: int = 0, seed: int = 1
) -> Speech:
    """Say a text. The same arguments give the same samples, whatever was said before.

    Args:
        text: what to say; may hold espeak-ng's embedded commands (control character 1, a number, a letter).
        voice: lines of an espeak-ng voice file, added to ``REFERENCE_VOICE``.
        rate: words a minute, 80 to 450.
        volume: 0 to 200; 100 is espeak-ng's own.
        word_gap: extra pause between words, in units of 10 ms at the default rate.
        seed: of espeak-ng's own randomness.

    Returns:
        samples ``[samples]`` int16 at ``SAMPLE_RATE`` and the phonemes.

    Raises:
        MissingExtraError: the package ``espeakng-loader`` is not installed.
        SpeechFTError: the library failed, or said nothing.
    """
    with _LOCK:
        speech = _shared().speak(text, voice, rate, volume, word_gap, seed)
    if speech.samples.size == 0 or not speech.samples.any():
        raise SpeechFTError(f"espeak-ng said nothing for {text!r}", "check the text and the voice")
    return speech
