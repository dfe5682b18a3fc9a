"""Item texts without markup."""

from __future__ import annotations

import pytest

from tessera.data.text import as_text, clean


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("HERSHEY&#39;S &amp; Co", "HERSHEY'S & Co"),
        ("<div class=\"aplus\"> <br>Cards<br />for <a href='x'>you</a></div>", "Cards for you"),
        ("&lt;b&gt;bold&lt;/b&gt; 3 < 4 > 2", "bold 3 < 4 > 2"),
        ("a<script>alert(1)</script>b<style>p{x:y}</style>c", "a b c"),
        ("var aPageStart = (new Date()).getTime();\nvar ue_t0=1;", ""),
        (".a-box-inner{background-color:#fff}#alm-price{display:none}", ""),
        ("  many \n\t spaces  ", "many spaces"),
        ("Set {of 3} (new): 50% off, C# & C++", "Set {of 3} (new): 50% off, C# & C++"),
        ("中文 éü", "中文 éü"),
    ],
)
def test_clean(given: str, expected: str) -> None:
    assert clean(given) == expected


def test_as_text() -> None:
    assert as_text(None) == as_text(float("nan")) == as_text([]) == as_text({}) == ""
    assert as_text(["a", ["b", "a"], None, "a"]) == "a, b, a"
    assert as_text(["a", "b"], " > ") == "a > b"
    assert as_text({"\n Size: \n": "3 &amp; 4", "empty": ""}) == "Size: 3 & 4"
    assert as_text(9.5) == "9.5"
    assert as_text(True) == "yes"
