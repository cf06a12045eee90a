"""The templates of regsync's files come to texts, or are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concil.errors import UsageError
from concil.plan.formats.go_template import MissingValue, render

FIELDS = {"Sync.Source": "gcr.io/team/app", "Sync.Type": "image"}


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SET", "value")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("no template", "no template"),
        ("", ""),
        ('{{env "SET"}}', "value"),
        ('a{{ env "SET" }}b{{env `SET`}}', "avaluebvalue"),
        ("x/{{ .Sync.Source }}", "x/gcr.io/team/app"),
        ('{{ index (split .Sync.Source "gcr.io/") 1 }}', "team/app"),
        ('{{ split .Sync.Source "/" | join "," }}', None),
        ('{{ join (split .Sync.Source "/") "-" }}', "gcr.io-team-app"),
        ('{{ env "UNSET" | default "other" }}', "other"),
        ('{{ env "SET" | default "other" }}', "value"),
        ("{{ .Sync.Type | upper | lower | title }}", "Image"),
        ('{{ printf "%s-%d%%-%q" .Sync.Type 3 "x" }}', 'image-3%-"x"'),
        ('{{"a\\"\\n\\\\b"}}', 'a"\n\\b'),
        ('a {{- " b " -}} c', "a b c"),
        ('a {{" b "}} c', "a  b  c"),
        ("{{ 7 }}", "7"),
    ],
)
def test_a_text_is_filled_in(text: str, filled: str | None) -> None:
    if filled is None:
        with pytest.raises(UsageError, match="not supported"):
            render(text, FIELDS)
    else:
        assert render(text, FIELDS) == filled
        assert not isinstance(render(text, FIELDS), MissingValue)


def test_a_file_is_filled_in_without_the_blanks_around(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(" s3cret\n\n")

    assert render(f'<{{{{ file "{path}" }}}}>', {}) == "<s3cret>"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('a{{env "UNSET"}}', "there is no environment variable 'UNSET'"),
        ('{{env "EMPTY"}}', "the environment variable 'EMPTY' is empty"),
        ('{{file "/nowhere/x"}}', "cannot read '/nowhere/x': No such file or directory"),
        ('{{file "/"}}', "cannot read '/': Is a directory"),
        ('{{file "/dev/\\x00"}}', "cannot read"),
    ],
)
def test_missing_variable_or_file_gives_a_reason(text: str, why: str) -> None:
    found = render(text, {})

    assert isinstance(found, MissingValue)
    assert found == ""
    assert found.reason.startswith(why)


@pytest.mark.parametrize(
    "text",
    [
        "{{",
        "{{}}",
        "{{ x }}",
        "{{ .Ref.Tag }}",
        '{{ env "SET }}',
        '{{ (env "SET" }}',
        '{{ env "SET") }}',
        '{{ env "SET" "SET" }}',
        '{{ "SET" | "x" }}',
        "{{ if .Sync.Type }}x{{ end }}",
        "{{$t := time.Now}}{{$t.Year}}",
        '{{ index (split .Sync.Source "/") 9 }}',
        '{{ index (split .Sync.Source "/") -1 }}',
        '{{ split .Sync.Source "" }}',
        "{{ upper 3 }}",
        '{{ printf "%s" }}',
        "{{ " + "(" * 5000 + " }}",
        "{{ env }}",
    ],
)
def test_what_is_no_template_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="template"):
        render(text, FIELDS)


@given(st.text(alphabet='{}-." \\|()`ab1%$envsplit\n', max_size=40))
def test_any_text_is_filled_in_or_refused(text: str) -> None:
    try:
        assert isinstance(render(text, FIELDS), str)
    except UsageError as error:
        assert "template" in str(error)  # noqa: PT017 - most texts raise nothing
