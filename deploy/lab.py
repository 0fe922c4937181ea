"""The script that runs a bundle in a laboratory: a template, and what a site file says.

The script is plain bash and calls `stformer` alone, so that whoever runs it can read it and
repeat any line of it by hand.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from stformer.deploy.bundle import Manifest
from stformer.deploy.site import Loihi, Slurm
from stformer.errors import InputError

TEMPLATE = Path(__file__).parent / "lab.sh"
_HEAD, _SETTINGS = "#@ sbatch\n", "#@ settings\n"  # the template's two lines that are filled in


def script(bundle: Path, manifest: Manifest, loihi: Loihi, slurm: Slurm | None = None) -> str:
    """The script for one bundle at one site.

    Args:
        bundle: where the bundle lies, as the script shall find it.
        manifest: of the bundle; its seal is in the script.
        loihi: the chip and how to reach it.
        slurm: the queue that the script itself may be given to (`sbatch`); only for a board
            of one's own, since NxCore asks for jobs of its own elsewhere.

    Raises:
        InputError: a site that says too much or too little.
    """
    check_site(loihi, slurm)
    settings = {
        "BUNDLE": str(bundle),
        "SEAL": manifest.seal,
        "NAME": manifest.name,
        "BACKEND": loihi.backend,
        "HOST": loihi.host,
        "TIMEOUT": str(loihi.timeout),
    }
    if loihi.host == "slurm":
        exports = {"PARTITION": loihi.partition, "BOARD": loihi.board}
    else:
        exports = {"NXSDKHOST": loihi.address, "HOST_BINARY": loihi.host_binary}
    exports["LOIHI_GEN"] = loihi.generation
    exports["STFORMER_INPUT_DELAY"] = str(loihi.input_delay)
    exports["STFORMER_OUTPUT_DELAY"] = str(loihi.output_delay)
    lines = [f"{key}={shlex.quote(value)}" for key, value in settings.items()]
    lines.append(f"MEASURES=({' '.join(map(shlex.quote, loihi.measures))})")
    if loihi.backend == "loihi2":
        lines += [f"export {k}={shlex.quote(v)}" for k, v in exports.items() if v]
    text = TEMPLATE.read_text("utf-8")
    assert text.count(_HEAD) == text.count(_SETTINGS) == 1
    head = "".join(f"#SBATCH {line}\n" for line in _directives(slurm)) if slurm else ""
    return text.replace(_HEAD, head).replace(_SETTINGS, "\n".join(lines) + "\n")


def check_site(loihi: Loihi, slurm: Slurm | None) -> None:
    """Raise InputError for settings of a site that contradict each other."""
    if loihi.backend != "loihi2":
        return  # a rehearsal: no board is asked for
    if loihi.host == "slurm":
        if bool(loihi.partition) == bool(loihi.board):
            found = "both partition and board" if loihi.board else "neither partition nor board"
            raise InputError("[loihi]", found, "one of the two, for host 'slurm'")
        if slurm is not None:
            raise InputError(
                "[slurm]",
                "a queue for the script beside host 'slurm'",
                "host 'ethernet', or no table [slurm]",
                "NxCore asks the batch system for a board itself: run the script with bash",
            )
    elif not loihi.address:
        raise InputError("[loihi]", "no address", "the board's host, for host 'ethernet'")


def _directives(slurm: Slurm) -> list[str]:
    named = {"partition": slurm.partition, "account": slurm.account, "time": slurm.walltime}
    return [
        "--job-name=stformer",
        "--output=%x-%j.log",
        f"--cpus-per-task={slurm.cores}",
        f"--mem={slurm.memory.removesuffix('iB')}",
        *(f"--{key}={value}" for key, value in named.items() if value),
        *slurm.directives,
    ]
