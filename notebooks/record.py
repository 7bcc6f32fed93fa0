"""Record the runs that the notebooks of this folder replay: execute each notebook without its bundles, keep its runs.

    python notebooks/record.py FOLDER [NOTEBOOK ...] [--claude PATH] [--codex PATH]

A notebook records what it does when the bundle that it names is not there (``mode="auto"``), and replays it when it is.
So this copies the notebooks into FOLDER, which must be new, executes them there, and exports the runs of
:data:`BUNDLES`, private texts masked, to ``recorded/``. Scripts and a small local model answer for the models, so no key
and no login is needed; the programs are real: Claude Code and Codex are those of the tests unless others are named.

Programs say where they work: choose a FOLDER whose path tells nothing of you, such as ``/srv/lab``. Nothing is kept when
a word is left in a bundle that names this machine or its user.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import sys
import tempfile
import zipfile
from pathlib import Path

import zstandard

from orchestrator_lab import open_run
from orchestrator_lab.bundle import SUFFIX
from orchestrator_lab.bundle.privacy import own_identity
from orchestrator_lab.notebook.executing import execute
from orchestrator_lab.run import Run

HERE = Path(__file__).resolve().parent
RECORDED = HERE / "recorded"
PROGRAMS = HERE.parent / "tests" / "agents" / "node_modules" / ".bin"
#: What each notebook records: where the bundles lie, by the names of the clusters, which are theirs too.
BUNDLES = {
    "01_quickstart": ("quickstart",),
    "03_comparing_conditions": tuple(f"comparing/{name}-{n}" for n in (1, 2, 3) for name in ("chain", "star")),
    "04_record_and_replay": ("claude-team", "local-model"),
    "05_share_a_run": ("claude-codex-pair",),
    "06_live_view": ("live",),
}
#: Bytes that all bundles may have together.
LARGEST = 5_000_000


def record(name: str, folder: Path) -> dict[str, Run]:
    """Execute a notebook where its bundles are not.

    Parameters
    ----------
    name : str
        The notebook, a key of :data:`BUNDLES`.
    folder : Path
        A folder for it; its path is told by the programs.

    Returns
    -------
    dict of str to Run
        The runs that it recorded, by the places of their bundles.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for source in [HERE / f"{name}.ipynb", *RECORDED.glob("*.yaml")]:
        target = folder / source.relative_to(HERE)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, target)
    execute(folder / f"{name}.ipynb", mode="record")
    places = {Path(place).name: place for place in BUNDLES[name]}
    runs = [open_run(manifest.parent) for manifest in (folder / "runs").rglob("manifest.json")]
    return {places[run.manifest["name"]]: run for run in runs if run.manifest["name"] in places}


def private_words() -> list[str]:
    """Return what names this machine or its user; root names nobody, and two letters are met by chance."""
    words = {
        str(Path.home()),
        str(HERE.parent),
        sys.prefix,
        os.environ.get("SSH_CONNECTION", "").split(" ")[0],
        socket.getfqdn(),
    }
    words |= {word for kind in own_identity() for word in kind}
    return sorted(word for word in words - {"root", "/root"} if len(word) > 2)


def told(bundle: Path, words: list[str]) -> list[str]:
    """Return where a bundle says something that it must not say.

    Parameters
    ----------
    bundle : Path
        The file.
    words : list of str
        What it must not say, beside keys, homes and addresses of mail.

    Returns
    -------
    list of str
        File, and what was found in it.
    """
    plain = [rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])" for word in words]
    patterns = [*plain, r"sk-ant-[\w-]{8,}", r"/(?:home|Users)/\w+"]
    expression = re.compile("|".join(patterns).encode())
    found = []
    with zipfile.ZipFile(bundle) as archive:
        for name in archive.namelist():
            data = archive.read(name)
            if name.endswith(".zst"):
                data = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).readall()
            found += [f"{name}: {match[0].decode(errors='replace')}" for match in expression.finditer(data)]
    return found


def keep(runs: dict[str, Run]) -> None:
    """Export runs into the places of the recorded ones, if they may be shown to everyone."""
    with tempfile.TemporaryDirectory() as desk:
        made = {}
        for place, run in runs.items():
            made[RECORDED / f"{place}{SUFFIX}"] = bundle = Path(desk) / f"{run.manifest['name']}{SUFFIX}"
            run.export(bundle)
            if found := told(bundle, private_words()):
                sys.exit(f"{place} tells more than it should; nothing was kept:\n  " + "\n  ".join(found[:20]))
        others = set(RECORDED.rglob(f"*{SUFFIX}")) - set(made)
        if (size := sum(path.stat().st_size for path in [*others, *made.values()])) > LARGEST:
            sys.exit(f"the bundles have {size:,} bytes, more than {LARGEST:,}; nothing was kept")
        for target, bundle in made.items():
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(bundle, target)
            sys.stdout.write(f"{target.relative_to(HERE)}: {target.stat().st_size:,} bytes\n")


def main(argv: list[str] | None = None) -> None:
    """Record the runs of the notebooks named, or of all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="a new folder whose path tells nothing of you")
    parser.add_argument("notebook", nargs="*", help=f"of {', '.join(BUNDLES)}; all when omitted")
    parser.add_argument("--claude", type=Path, default=PROGRAMS / "claude", help="Claude Code; that of the tests")
    parser.add_argument("--codex", type=Path, default=PROGRAMS / "codex", help="Codex; that of the tests")
    chosen = parser.parse_args(argv)
    if unknown := set(chosen.notebook) - set(BUNDLES):
        parser.error(f"nothing is recorded by {', '.join(sorted(unknown))}; choose of {', '.join(BUNDLES)}")
    folder = chosen.folder.resolve()
    if folder.exists():
        parser.error(f"{folder} exists already: name a folder that does not")
    programs = {"claude": chosen.claude, "codex": chosen.codex}
    for name, place in programs.items():
        if not place.exists():
            parser.error(f"there is no {name} at {place}: run 'npm ci' in tests/agents, or name it by --{name}")
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        (folder / "bin" / name).symlink_to(place.resolve())
    # Neither the way to the programs nor that to the sockets shall tell whose machine this is; the programs have the
    # temporary folder that they always have.
    os.environ["PATH"] = f"{folder / 'bin'}:{os.environ['PATH']}"
    tempfile.tempdir = str(folder / "t")
    (folder / "t").mkdir()
    for name in chosen.notebook or BUNDLES:
        keep(record(name, folder))


if __name__ == "__main__":
    main()
