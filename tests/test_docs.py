"""The documentation keeps in step: what is generated is current, examples run, links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from orchestrator_lab.config import load_config
from orchestrator_lab.errors import ConfigError
from orchestrator_lab.gateway.rules import load_script

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
#: A block with this word in its first line is shown and not run.
NOT_RUN = "no-run"


def _generate() -> Any:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = _generate()


def blocks(page: Path, language: str) -> list[tuple[int, str, str]]:
    """Return line, first line and text of each block in a language."""
    text = page.read_text(encoding="utf-8")
    return [
        (text[: found.start()].count("\n") + 1, found[1], found[2])
        for found in FENCE.finditer(text)
        if found[1].split()[:1] == [language]
    ]


def with_blocks(language: str) -> list[Any]:
    found = [page for page in PAGES if any(NOT_RUN not in info for _, info, _ in blocks(page, language))]
    return [pytest.param(page, id=page.name) for page in found]


# what is generated --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tables.md", "cli.md", "configuration.md", "gateway.md"])
def test_generated_pages_are_current(name: str) -> None:
    wanted = generate.pages()[DOCS / name]
    assert (DOCS / name).read_text(encoding="utf-8") == wanted, "run .venv/bin/python docs/generate.py"


def test_every_key_of_the_schema_is_in_the_page() -> None:
    from orchestrator_lab.config import json_schema

    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    schema = json_schema()
    shapes: list[dict[str, Any]] = [schema["properties"]["cluster"]]
    for definition in schema["$defs"].values():
        shapes += [shape for shape in [definition, *definition.get("anyOf", [])] if "properties" in shape]
    for shape in shapes:
        for key in shape["properties"]:
            assert f"`{key}`" in page, key


def test_every_command_has_its_section() -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    for name, command in generate.commands().items():
        assert f"## orchestrator-lab {name}\n" in page
        section = page.split(f"## orchestrator-lab {name}\n")[1].split("\n## ")[0]
        for parameter in command.params:
            for option in [one for one in parameter.opts if one.startswith("--")]:
                assert option in section or option == "--help", (name, option)


# examples -----------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", with_blocks("python"))
def test_python_examples_run(
    page: Path, runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    assert runtime.is_dir()
    mpl.use("agg")
    monkeypatch.chdir(tmp_path)
    # One namespace a page: what a reader has read above is there.
    space: dict[str, Any] = {"__name__": "__main__"}
    try:
        for line, info, text in blocks(page, "python"):
            if NOT_RUN not in info:
                # Line numbers of a traceback are those of the page.
                exec(compile("\n" * line + text, str(page), "exec"), space)  # noqa: S102 - our own examples
    finally:
        plt.close("all")
        cluster = space.get("cluster")
        if cluster is not None and cluster.name in {one.name for one in type(cluster).list()}:
            cluster.shutdown()
    if "print(" in page.read_text(encoding="utf-8"):
        assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("page", with_blocks("yaml"))
def test_yaml_examples_are_valid(page: Path, tmp_path: Path) -> None:
    for name in ("coder.md", "boss.md"):
        (tmp_path / name).write_text("You write code.\n", encoding="utf-8")
    for line, info, text in blocks(page, "yaml"):
        if NOT_RUN in info:
            continue
        file = tmp_path / "example.yaml"
        file.write_text(text, encoding="utf-8")
        try:
            if "script" in info.split():
                assert load_script(str(file)).rules
            else:
                assert load_config(file, overrides=False).agents
        except ConfigError as error:
            pytest.fail(f"{page.name}, line {line}: {error.message}")


@pytest.mark.parametrize("page", with_blocks("shell"))
def test_shell_examples_name_real_commands(page: Path) -> None:
    known = generate.commands()
    for line, _, text in blocks(page, "shell"):
        for command in text.splitlines():
            words = shlex.split(command.split(" #")[0])
            if words[:1] != ["orchestrator-lab"]:
                continue
            names = [" ".join(words[1:3]), *words[1:2]]
            name = next((one for one in names if one in known), None)
            assert name is not None, f"{page.name}, line {line}: {command}"
            options = {option for parameter in known[name].params for option in parameter.opts} | {"--help"}
            for word in words[2:]:
                if word.startswith("-") and word != "-":
                    assert word.split("=")[0] in options, f"{page.name}, line {line}: {word} in {command}"


def test_the_readme_starts_with_a_short_example() -> None:
    _, _, text = blocks(ROOT / "README.md", "python")[0]
    assert len(text.strip().splitlines()) <= 16


# pages --------------------------------------------------------------------------------------------


def _anchors(page: Path) -> set[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    found = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(plain.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://|mailto:", target):
            continue
        place, _, anchor = target.partition("#")
        file = (page.parent / place).resolve() if place else page
        assert file.exists(), target
        assert file.is_relative_to(ROOT), target
        if anchor and file.suffix == ".md":
            assert anchor in _anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_no_place_of_their_writer(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert str(ROOT) not in text
    assert not re.search(r"(?<![\w.])/(?:home|root|Users)/\w", text)


def test_every_page_is_reached_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in DOCS.glob("*.md"):
        assert f"docs/{page.name}" in text, page.name


def test_the_japanese_page_follows_the_english_one() -> None:
    english, japanese = DOCS / "operations.md", DOCS / "operations.ja.md"

    def shape(page: Path) -> list[str]:
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        return [found[1] for found in re.finditer(r"^(#+) ", text, re.MULTILINE)]

    def commands(page: Path) -> list[str]:
        # Comments are translated, commands are not.
        lines = [line.split("#")[0].rstrip() for _, _, text in blocks(page, "shell") for line in text.splitlines()]
        return [line for line in lines if line]

    assert shape(english) == shape(japanese)
    assert commands(english) == commands(japanese)
