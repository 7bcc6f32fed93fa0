"""From a run's folder to a bundle: what goes in, masked, with what it needs to be understood."""

from __future__ import annotations

import json
import tempfile
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator_lab.bundle.collecting import choose
from orchestrator_lab.bundle.crate import crate, environment, readme
from orchestrator_lab.bundle.layout import (
    CHECKSUMS,
    CRATE,
    ENVIRONMENT,
    FACTS,
    FORMAT,
    INITIAL,
    JOURNAL,
    MANIFEST,
    NOTEBOOK,
    README,
    TABLES,
    fault_of_name,
    part_of,
)
from orchestrator_lab.bundle.masking import Findings, mask_content, mask_file
from orchestrator_lab.bundle.packing import pack
from orchestrator_lab.bundle.privacy import Masker, home_names, own_identity
from orchestrator_lab.bundle.salvage import iter_readable
from orchestrator_lab.bundle.staging import workshop
from orchestrator_lab.errors import BundleError, ConfigError, JournalError, disk_errors_as_they_are
from orchestrator_lab.schema import SCHEMA_VERSION
from orchestrator_lab.sealing import read_sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from orchestrator_lab.sealing import Seal

__all__ = ["INITIAL_LIMIT", "Changes", "Export", "ExportedFile", "Substitute", "export_bundle", "masker_for"]

#: Bytes of a work folder's initial state that go into a bundle.
INITIAL_LIMIT = 50 << 20
#: What of a run is asked for names of people, beside this machine.
_PLACES = ("work_dir", "cwd")


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A file that leaves the machine.

    Parameters
    ----------
    name : str
        In the bundle.
    size : int
        Bytes of it, unpacked.
    masked : dict of str to int
        How often each pattern was masked in it.
    looked_into : bool
        False for what is no text: nothing in it was masked.
    damage : tuple of str
        A sentence for each stretch that could not be read, and is left out.
    """

    name: str
    size: int
    masked: dict[str, int]
    looked_into: bool
    damage: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """What is another in an exported run than in the run itself.

    Parameters
    ----------
    events : frozenset of (str or None)
        Names of the events that are; None for a line that is none.
    manifest : bool
        Whether the manifest is.
    """

    events: frozenset[str | None]
    manifest: bool


@dataclass(frozen=True, slots=True)
class Substitute:
    """What stands for a private text.

    Parameters
    ----------
    text : str
        The private text; of keys only how long they are.
    pattern : str
        What it was recognised by.
    substitute : str
        What stands in the bundle.
    """

    text: str
    pattern: str
    substitute: str


@dataclass(frozen=True, slots=True, repr=False)
class Export:
    """What was exported, or would be.

    Parameters
    ----------
    path : pathlib.Path or None
        The bundle; None for a review.
    run_id : str
        Of the run.
    size : int or None
        Bytes of the bundle.
    files : tuple of ExportedFile
        All files in it.
    left_out : dict of str to str
        What is not in it though the run has it, and why.
    substitutes : tuple of Substitute
        What was masked. This is for the one who exports: it is not in the bundle.
    passed_over : tuple of str
        User and host names that are too common or too short to be masked as words.
    """

    path: Path | None
    run_id: str
    size: int | None
    files: tuple[ExportedFile, ...]
    left_out: dict[str, str]
    substitutes: tuple[Substitute, ...]
    passed_over: tuple[str, ...]

    @property
    def masked(self) -> dict[str, int]:
        """How often each pattern was masked, in all files."""
        total: Counter[str] = Counter()
        for file in self.files:
            total.update(file.masked)
        return dict(total)

    def __repr__(self) -> str:
        lines = [
            f"{self.run_id}: "
            + (
                f"would be exported, {len(self.files)} files"
                if self.path is None
                else f"{self.path}, {self.size} bytes"
            )
        ]
        for file in self.files:
            said = ", ".join(f"{pattern} {count}" for pattern, count in sorted(file.masked.items()))
            note = f"masked: {said}" if said else "" if file.looked_into else "not looked into: no text"
            lines.append(f"  {file.name}  {file.size} bytes  {note}".rstrip())
            lines += [f"    damaged: {sentence}" for sentence in file.damage]
        lines += [f"  left out: {name} ({why})" for name, why in sorted(self.left_out.items())]
        lines += [f"  {one.text!r} → {one.substitute} ({one.pattern})" for one in self.substitutes]
        return "\n".join(lines)


def masker_for(manifest: Mapping[str, Any], privacy: Mapping[str, Any] | None = None) -> Masker:
    """Return what finds the private texts of a run: of this machine, of the run's paths, and of its configuration.

    Parameters
    ----------
    manifest : mapping
        The run's.
    privacy : mapping, optional
        Beside what the run's configuration says under ``privacy``: ``words``, ``patterns``, ``keep``.

    Returns
    -------
    Masker
        With nothing found yet.

    Raises
    ------
    ConfigError
        When a key or an expression is wrong.
    """
    given = dict(privacy or {})
    if unknown := sorted(set(given) - {"words", "patterns", "keep"}):
        raise ConfigError(f"privacy has no key {unknown[0]!r}; it has: words, patterns, keep")
    config = manifest.get("config")
    cluster = config.get("cluster") if isinstance(config, dict) else None
    declared = cluster.get("privacy") if isinstance(cluster, dict) else None
    declared = declared if isinstance(declared, dict) else {}
    agents = config.get("agents") if isinstance(config, dict) else None
    public = [str(manifest.get("name") or "")]
    for agent in agents if isinstance(agents, list) else []:
        public += [str(agent.get(key) or "") for key in ("name", "role", "kind")] if isinstance(agent, dict) else []
    users, hosts, names = own_identity()
    paths = json.dumps([manifest.get(key) for key in _PLACES], ensure_ascii=False)
    return Masker(
        users=[*users, *home_names(paths)],
        hosts=hosts,
        names=names,
        words=[*declared.get("words", ()), *given.get("words", ())],
        patterns={**declared.get("patterns", {}), **given.get("patterns", {})},
        keep=[*declared.get("keep", ()), *given.get("keep", ())],
        public=[one for one in public if one],
    )


def export_bundle(
    folder: Path,
    target: Path | None,
    *,
    seal: Callable[[Path, Changes], Seal],
    manifest: Mapping[str, Any],
    shown_as: Path | None = None,
    notebook: Path | None = None,
    leave_out: Iterable[str] = (),
    initial_limit: int = INITIAL_LIMIT,
    mask: bool = True,
    privacy: Mapping[str, Any] | None = None,
) -> Export:
    """Write a run as a bundle.

    Parameters
    ----------
    folder : pathlib.Path
        The run's, which is over.
    target : pathlib.Path or None
        The file to write; None writes none, and tells what would be written.
    seal : callable
        Makes the tables of a run folder, given what of its journal and manifest is another than in `folder`.
    manifest : mapping
        The run's.
    shown_as : pathlib.Path, optional
        What the result says of the target, when that is moved later.
    notebook : pathlib.Path, optional
        A notebook to go with the run.
    leave_out : iterable of str
        Parts that stay here.
    initial_limit : int
        Bytes beyond which the work folder's initial state stays here.
    mask : bool
        Whether private texts are masked.
    privacy : mapping, optional
        See :func:`masker_for`.

    Returns
    -------
    Export
        What is in it.

    Raises
    ------
    BundleError
        When two files would have one name.
    ConfigError
        When a part or the notebook does not exist.
    OSError
        When it cannot be written.
    """
    masker = masker_for(manifest, privacy) if mask else None
    chosen = choose(folder, leave_out=leave_out, initial_limit=initial_limit)
    sources = dict(chosen.files)
    if notebook is not None:
        sources[f"{NOTEBOOK}/{_checked(notebook).name}"] = notebook
    # Beside the target: what is large is written once.
    with workshop(Path(tempfile.gettempdir()) if target is None else target.parent, ".olab-export-") as shop:
        events: set[str | None] = set()
        files, told, unreadable = _masked(sources, shop / "files", masker, events)
        run = shop / "run"
        run.mkdir()
        # Whoever masks nothing moves the run to another machine of their own, where it goes on as it was configured.
        unread = unreadable if masker is None else unreadable | _without_privacy(files, shop)
        told = {name: one for name, one in told.items() if name not in unread}
        left_out = chosen.left_out | unread
        if masker is not None:
            left_out = {masker.text(name): why for name, why in left_out.items()}
        for name in (MANIFEST, JOURNAL):
            if name in files:
                (run / name).symlink_to(files[name].resolve())
        changes = Changes(frozenset(events), manifest=files.get(MANIFEST) != sources.get(MANIFEST))
        with disk_errors_as_they_are():
            made = seal(run, changes)
        for path in sorted((run / TABLES).iterdir()):
            files[f"{TABLES}/{path.name}"] = path
            told[f"{TABLES}/{path.name}"] = ExportedFile(f"{TABLES}/{path.name}", path.stat().st_size, {}, True)
        masked: Counter[str] = Counter()
        for one in told.values():
            masked.update(one.masked)
        contents = _described(
            files,
            made,
            manifest,
            masked=None if masker is None else masked,
            left_out=left_out,
            damage={name: one.damage for name, one in sorted(told.items()) if one.damage},
        )
        if target is not None:
            pack(target, contents)
        listed = [
            told.get(name) or ExportedFile(name, len(content) if isinstance(content, bytes) else 0, {}, True)
            for name, content in contents.items()
        ]
        return Export(
            path=None if target is None else shown_as or target,
            run_id=str(manifest.get("run_id") or folder.name),
            size=None if target is None else target.stat().st_size,
            files=tuple(listed),
            left_out=left_out,
            substitutes=() if masker is None else tuple(_shown(masker)),
            passed_over=() if masker is None else tuple(masker.passed_over),
        )


def _checked(notebook: Path) -> Path:
    if notebook.suffix != ".ipynb" or not notebook.is_file():
        raise ConfigError(f"notebook={str(notebook)!r}: there is no such notebook; give an .ipynb file")
    return notebook


def _masked(
    sources: Mapping[str, Path], place: Path, masker: Masker | None, events: set[str | None]
) -> tuple[dict[str, Path], dict[str, ExportedFile], dict[str, str]]:
    """Mask every file; those in which nothing is masked stay where they lie. Return what could not be read as well.

    ``events`` takes the names of the journal's events that are changed.
    """
    place.mkdir()
    files: dict[str, Path] = {}
    told: dict[str, ExportedFile] = {}
    unread: dict[str, str] = {}
    for number, (source_name, source) in enumerate(sources.items()):
        path, name, looked_into = source, source_name, True
        counts: dict[str, int] = {}
        findings = Findings()
        if masker is not None:
            masker.counts = Counter()
            made = place / f"{number}{''.join(source.suffixes)[-24:]}"
            name = masker.text(source_name)
            try:
                if part_of(source_name) == INITIAL:
                    masked = mask_content(source, made, masker)
                else:
                    masked = mask_file(source, made, masker, findings)
            except JournalError as error:
                unread[name] = f"it cannot be read: {masker.text(error.message)}"
                continue
            path, looked_into = made if masked else source, masked is not None
            counts = dict(masker.counts)
            if source_name == JOURNAL:
                events |= findings.events
        elif source.name.endswith(".cast.zst"):
            # Whoever moves a run to another machine of their own gets it as it is, and is told.
            deque(iter_readable(source, findings.damage), maxlen=0)
        fault = fault_of_name(name)
        if name in files or fault is not None:
            raise BundleError(
                f"{source}: with what is private masked its name is {name!r}, "
                f"{fault or 'as that of another file'}; rename it, or leave its part out",
                path=str(source),
            )
        files[name] = path
        told[name] = ExportedFile(name, path.stat().st_size, counts, looked_into, tuple(findings.damage))
    return files, told, unread


def _without_privacy(files: dict[str, Path], shop: Path) -> dict[str, str]:
    """Take what the configuration says of private texts out of it: it names them. Return what could not be read."""
    import yaml

    unread: dict[str, str] = {}
    for name in (MANIFEST, "config.yaml"):
        if name not in files:
            continue
        text = files[name].read_text(encoding="utf-8")
        if "privacy" not in text:
            continue
        try:
            whole = json.loads(text) if name == MANIFEST else yaml.safe_load(text)
        except yaml.YAMLError:
            del files[name]
            unread[name] = "it is no YAML"
            continue
        config = whole.get("config") if name == MANIFEST and isinstance(whole, dict) else whole
        cluster = config.get("cluster") if isinstance(config, dict) else None
        if isinstance(cluster, dict) and cluster.pop("privacy", None):
            made = shop / name
            text = (
                json.dumps(whole, ensure_ascii=False, indent=2) + "\n"
                if name == MANIFEST
                else yaml.safe_dump(whole, sort_keys=False, allow_unicode=True)
            )
            made.write_text(text, encoding="utf-8")
            files[name] = made
    return unread


def _described(
    files: Mapping[str, Path],
    seal: Seal,
    manifest: Mapping[str, Any],
    *,
    masked: Mapping[str, int] | None,
    left_out: Mapping[str, str],
    damage: Mapping[str, tuple[str, ...]],
) -> dict[str, Path | bytes]:
    """Return all content of a bundle: in front what it is, then the run's files."""
    run, agents = (_rows(seal, table) for table in ("runs", "agents"))
    shown = json.loads(files[MANIFEST].read_text(encoding="utf-8"))
    version = str((shown.get("versions") or {}).get("orchestrator_lab") or seal.package_version)
    about: dict[str, Any] = {
        "run": {name: value for name, value in run[0].items() if name != "params"},
        "agents": agents,
        "name": str(shown.get("name") or "a cluster"),
        "package_version": version,
    }
    about["run"]["run_id"] = str(manifest.get("run_id") or run[0]["run_id"])
    facts = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "package_version": seal.package_version,
        "run_id": about["run"]["run_id"],
        "left_out": dict(sorted(left_out.items())),
        "masked": None if masked is None else dict(sorted(masked.items())),
        "damaged": {name: list(sentences) for name, sentences in damage.items()},
    }
    names = [README, FACTS, CRATE, ENVIRONMENT, *files, CHECKSUMS]
    head: dict[str, Path | bytes] = {
        README: readme(names, **about, left_out=left_out, masked=masked, damage=damage).encode(),
        FACTS: (json.dumps(facts, ensure_ascii=False, indent=1) + "\n").encode(),
        CRATE: crate(names, **about).encode(),
        ENVIRONMENT: environment().encode(),
    }
    return {**head, **{name: files[name] for name in sorted(files)}}


def _rows(seal: Seal, table: str) -> list[dict[str, Any]]:
    frame = read_sealed(seal, table)
    if frame is None:
        return []
    rows = json.loads(frame.to_json(orient="records", date_format="iso", date_unit="us"))
    return [dict(row) for row in rows]


def _shown(masker: Masker) -> Iterator[Substitute]:
    for text, (pattern, substitute) in masker.found.items():
        yield Substitute(f"({len(text)} characters)" if pattern == "key" else text, pattern, substitute)
