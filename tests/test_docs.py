"""The documentation keeps in step: what is generated is current, examples run, links lead somewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from pages import DOCS, FENCE, JAPANESE, NOT_RUN, OPERATIONS, PAGES, ROOT, TRANSLATED, anchors, blocks, label, prose

from orchestrator_lab.config import load_config
from orchestrator_lab.errors import ConfigError
from orchestrator_lab.gateway.rules import load_script

if TYPE_CHECKING:
    from pathlib import Path

#: Japanese pages repeat examples, and the operations pages have a test of their own.
EXAMPLES = [page for page in PAGES if page not in {*JAPANESE, *OPERATIONS}]


def _generate() -> Any:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = _generate()


def with_blocks(language: str) -> list[Any]:
    found = [page for page in EXAMPLES if any(NOT_RUN not in info for _, info, _ in blocks(page, language))]
    return [pytest.param(page, id=label(page)) for page in found]


# what is generated --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tables.md", "cli.md", "configuration.md", "gateway.md", "web-api.md"])
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


@pytest.mark.parametrize("page", [one for one in PAGES if blocks(one, "shell") and one not in JAPANESE], ids=label)
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


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?://|mailto:", target):
            continue
        place, _, anchor = target.partition("#")
        file = (page.parent / place).resolve() if place else page
        assert file.exists(), target
        assert file.is_relative_to(ROOT), target
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_pages_name_no_place_of_their_writer(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert str(ROOT) not in text
    assert not re.search(r"(?<![\w.])/(?:home|root|Users)/\w", text)


@pytest.mark.parametrize("readme", ["README.md", "README.ja.md"])
def test_every_page_is_reached_from_the_readme(readme: str) -> None:
    text = (ROOT / readme).read_text(encoding="utf-8")
    japanese = readme == "README.ja.md"
    own = [page for page in OPERATIONS if (page in JAPANESE) == japanese]
    for page in [*({*DOCS.glob("*.md")} - set(TRANSLATED if japanese else [])), *own]:
        assert f"({label(page)})" in text, label(page)


# English and Japanese -----------------------------------------------------------------------------


def english(page: Path) -> Path:
    """Return the page that a Japanese page says the same as."""
    name = page.name.replace(".ja.md", ".md")
    return next((one for one in TRANSLATED if one.name == name), page.with_name(name))


@pytest.mark.parametrize("page", JAPANESE, ids=label)
def test_japanese_pages_follow_the_english_ones(page: Path) -> None:
    texts = [one.read_text(encoding="utf-8") for one in (english(page), page)]

    def code(text: str) -> list[tuple[str, str]]:
        # Comments are translated, all else is the same.
        lines = re.compile(r"\s*#\s.*$", re.MULTILINE)
        return [(found[1], lines.sub("", found[2])) for found in FENCE.finditer(text)]

    def levels(text: str) -> list[str]:
        return re.findall(r"^(#+) ", FENCE.sub("", text), re.MULTILINE)

    def rows(text: str) -> list[int]:
        return [line.count(" | ") for line in FENCE.sub("", text).splitlines() if line.startswith("|")]

    def words(text: str) -> set[str]:
        return set(re.findall(r"`([^`]+)`", FENCE.sub("", text)))

    for same in (code, levels, rows, words):
        assert same(texts[0]) == same(texts[1]), same.__name__
    links = (os.path.relpath(page, english(page).parent), os.path.relpath(english(page), page.parent))
    for text, other in zip(texts, (f"[日本語]({links[0]})", f"[English]({links[1]})"), strict=True):
        assert other in text.partition("\n## ")[0]


def test_operations_pages_are_pairs() -> None:
    assert {english(page) for page in JAPANESE} == {ROOT / "README.md", *TRANSLATED, *OPERATIONS} - set(JAPANESE)


@pytest.mark.parametrize("page", JAPANESE, ids=label)
def test_japanese_pages_lead_to_japanese_pages(page: Path) -> None:
    for place in re.findall(r"\]\(([^)#\s]+\.md)", prose(page)):
        target = (page.parent / place).resolve()
        there_is_one = target in {english(one) for one in JAPANESE}
        assert not there_is_one or target == english(page), place
