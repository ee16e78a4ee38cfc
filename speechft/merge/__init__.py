"""Stage 2. The package is the function, too: once it is imported it stands where `speechft.merge` stood."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Package(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:
        """See `speechft.merge.merge.merge`."""
        from speechft.merge.merge import merge

        return merge(*args, **options)


sys.modules[__name__].__class__ = _Package
