"""Quantised weights and flash attention without their package or a GPU are refused before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from tessera.artifacts.gpus import VISIBLE
from tessera.plan import required
from tessera.plan.graph import Plan
from tessera.plan.required import check_files
from tessera.settings.base import ConfigError
from tessera.settings.config import load

REVISION = "0" * 40


def plan(**keys: Any) -> Plan:
    model = {"hub": "Qwen/Qwen2.5-0.5B-Instruct", "revision": REVISION, **keys}
    return Plan(
        load(
            {
                "datasets": {"shop": {"source": "bazaar"}},
                "models": {"reads": model},
                "tables": {"text": {"recipe": "text", "model": "reads"}},
                "systems": {"text": {"items": {"table": "text"}}},
                "experiment": {"datasets": ["shop"], "systems": ["text"]},
            }
        )
    )


ASKED = [({"quantization": "4bit"}, "bitsandbytes"), ({"quantization": "8bit"}, "bitsandbytes"),
         ({"attention": "flash_attention_2"}, "flash_attn")]  # fmt: skip


@pytest.mark.parametrize(("keys", "package"), ASKED)
def test_a_package_and_a_gpu_are_needed(keys: dict[str, Any], package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    have = set[str]()
    real = required.find_spec
    # the packages are never installed here: whether they are is all that is asked
    monkeypatch.setattr(required, "find_spec", lambda name: name if name in have else real(name))
    monkeypatch.setenv(VISIBLE, "0")
    (key,) = keys
    if real(package) is None:
        with pytest.raises(ConfigError, match=rf"models\.reads\.{key}: \w+ needs the package {package}, which is not"):
            check_files(plan(**keys), elsewhere=True)
    have.add(package)
    check_files(plan(**keys))
    with pytest.raises(ConfigError, match="needs a GPU, and device is cpu"):
        check_files(plan(**keys, device="cpu"), elsewhere=True)
    monkeypatch.setenv(VISIBLE, "")
    with pytest.raises(ConfigError, match="needs a GPU, and this machine shows none"):
        check_files(plan(**keys))
    check_files(plan(**keys), elsewhere=True)  # jobs of a cluster have devices of their own


def test_plain_weights_need_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "")
    check_files(plan())
