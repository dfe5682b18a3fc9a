"""Arrow without pandas: a job that makes no data frame need not load the library of data frames."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


class _NoPandas:
    """An importer that says that there is no pandas."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder.find_spec`."""
        if name == "pandas":
            raise ModuleNotFoundError("not asked for by pyarrow", name=name)
        return None


def without_pandas() -> None:
    """Keep pyarrow from loading pandas in this process, which takes it 0.4 s of CPU time at its first array.

    pyarrow looks for pandas once and keeps the answer. Who imports pandas afterwards gets it; pyarrow does not convert
    to it (`to_pandas`). Nothing changes where pandas is loaded already.
    """
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    sys.meta_path.insert(0, _NoPandas)
    try:
        pa.array([])
    finally:
        sys.meta_path.remove(_NoPandas)
