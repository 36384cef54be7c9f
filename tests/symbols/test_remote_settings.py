"""Sources in settings and on the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deadreckon.config import RemoteLimits, load, remote_source
from deadreckon.errors import ConfigError

# -- Settings ---------------------------------------------------------------------------------------------------------


def test_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "abc$d")
    path = tmp_path / "settings.toml"
    path.write_text("""
        [remote]
        retries = 5
        [[sources]]
        url = "https://symbols.example.org/"
        layout = "breakpad"
        kinds = ["breakpad"]
        headers = { Auth-Token = "${TOKEN}", X = "$$5" }
        [[sources]]
        url = "s3://bucket/prefix"
    """)
    config = load(path, {"DEADRECKON__REMOTE__PARALLEL": "2"})
    assert (config.remote.retries, config.remote.parallel) == (5, 2)
    first, second = config.sources
    assert first.sent_headers() == {"Auth-Token": "abc$d", "X": "$5"}
    assert "abc" not in repr(config)
    assert (first.layout, first.kinds, second.layout) == ("breakpad", ("breakpad",), "auto")
    assert remote_source(first.url, config.sources) is first
    assert load(None, {}).sources == ()


def test_the_settings_in_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYMBOLS_TOKEN", "t")
    text = (Path(__file__).parent.parent.parent / "docs/sources.md").read_text()
    (tmp_path / "settings.toml").write_text("\n".join(re.findall(r"```toml\n(.*?)```", text, re.DOTALL)))
    config = load(tmp_path / "settings.toml", {})
    assert config.remote == RemoteLimits()
    assert [s.layout for s in config.sources] == ["symstore", "unified"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[sources]]\nlayout = "auto"', r"sources\[0\]\.url: missing"),
        ('[[sources]]\nuri = "x"', r"unknown setting sources\[0\]\.uri; did you mean sources\[0\]\.url"),
        ('[[sources]]\nurl = "ftp://x"', "expected http://"),
        ('[[sources]]\nurl = "https:///x"', "expected http://"),
        ('[[sources]]\nurl = "https://a b/"', "expected http://"),
        ('[[sources]]\nurl = "https://x:99999"', "99999|[Pp]ort"),
        ('[[sources]]\nurl = "https://me:secret@x"', "credentials go into headers"),
        ('[[sources]]\nurl = "https://x"\nlayout = "flat"', "'flat': expected one of auto, "),
        ('[[sources]]\nurl = "https://x"\nkinds = ["pdb"]', "kinds"),
        ('[[sources]]\nurl = "https://x"\nkinds = "debuginfo"', r"sources\[0\]\.kinds: expected a list of texts"),
        (
            '[[sources]]\nurl = "https://x"\nheaders = { Token = 5 }',
            r"sources\[0\]\.headers: expected a table of texts",
        ),
        ('[[sources]]\nurl = "https://x"\nheaders = { Token = "$NOT_SET_AT_ALL" }', r"\$NOT_SET_AT_ALL is not set"),
        ('[[sources]]\nurl = "https://x"\nheaders = { Token = "5$" }', r"write \$\$"),
        ('[[sources]]\nurl = "https://x"\nheaders = { "a b" = "x" }', "not a header's name"),
        ('[[sources]]\nurl = "https://x"\nheaders = { a = "x\\r\\nb: y" }', "one line"),
        ('[[sources]]\nurl = "s3://x"\nheaders = { a = "x" }', "S3 source takes no headers"),
        ('sources = "https://x"', "sources: expected a list"),
        ("sources = [1]", r"sources\[0\]: expected a table"),
    ],
)
def test_settings_that_are_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load(path, {})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "url", "layout"),
    [("https://x/y", "https://x/y", "auto"), ("symstore_index2+http://x", "http://x", "symstore_index2"),
     ("s3://bucket", "s3://bucket", "auto"), ("/a/https://x", None, ""), ("C:\\x", None, ""), ("file:///x", None, "")],
)  # fmt: skip
def test_urls_on_the_command_line(text: str, url: str | None, layout: str) -> None:
    found = remote_source(text)
    assert (found and (found.url, found.layout)) == (url and (url, layout))
