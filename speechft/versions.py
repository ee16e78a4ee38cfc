"""The versions that go into every result."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("speechft", "torch", "torchaudio", "transformers", "s3prl", "accelerate", "lhotse", "numpy")


def installed(package: str) -> str | None:
    """A package's version, or None; nothing is imported."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Name -> version of what is installed."""
    return {package: found for package in packages if (found := installed(package)) is not None}
