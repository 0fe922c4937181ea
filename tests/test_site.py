"""Site files: typed, known keys only, and no word that a shell could take for something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from stformer.deploy.site import Loihi, Slurm, read_site
from stformer.errors import InputError


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "no table"),
        ("slurm = 3", "no table"),
        ("[slurm]\npartitoin = 'a'", "unknown key"),
        ("[slurm]\nworkers = 'two'", "type int"),
        ("[slurm]\nworkers = true", "type int"),
        ("[slurm]\nworkers = 0", "1...4096"),
        ("[slurm]\npartition = 'a; rm'", "letters"),
        ("[slurm]\npartition = '$(id)'", "letters"),
        ('[slurm]\npartition = "a\\nb"', "letters"),
        ("[slurm]\ndirectives = ['--gres=x', '`id`']", "letters"),
        ("[slurm]\ndirectives = [3]", "texts"),
        ("[slurm", "cannot be read"),
        ("[slrum]\n[slurm]", "unknown table"),
        ("[slurm]\n[loihi]\nhost = 'usb'", "slurm, ethernet"),
        ("[slurm]\n[loihi]\ngeneration = 'N4'", "N3B3"),
        ("[slurm]\n[loihi]\nmeasures = ['power', 'colour']", "activity"),
        ("[slurm]\n[loihi]\ntimeout = 604801", "604800"),
    ],
)
def test_site_files_are_checked(text: str, part: str, tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(text)
    with pytest.raises(InputError, match=part.replace("...", r"\.\.\.")):
        read_site(tmp_path / "site.toml", "slurm")


def test_a_site_file(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(
        "[slurm]\npartition = 'kp'\ndirectives = ['--gres=loihi:1']\n[loihi]\nboard = 'ncl-1'\n"
    )
    site = read_site(path, "loihi")
    assert site.slurm == Slurm(partition="kp", directives=("--gres=loihi:1",))
    assert site.loihi == Loihi(board="ncl-1") and site.loihi.timeout == 1500
    path.write_text("[loihi]\n")
    assert read_site(path, "loihi").slurm is None
