"""One forward pass of this project's engine and of its peers, over the same canvas with the same random weights.

    python -m benchmarks.peers --install            # once: an environment for each peer, under build/peers
    python -m benchmarks.peers                      # 8 M, 134 M and 464 M parameters; ten minutes
    python -m benchmarks.peers --sizes 8M

The canvas has 64 prompt tokens and 128 masks. Every candidate has one thread, computes the logits of all positions, and
takes its turn in each round; the median of its CPU times is compared. Ours is timed once more with the logits of one
block of 32 masks, which is what a step of generation computes. Before that, a peer's logits are compared with ours in
float32: a kind of weights that is farther off than its tolerance is not timed.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks import machine
from benchmarks.inference import SIZES
from benchmarks.peers.known import PEERS
from benchmarks.peers.measuring import BASELINE, measure
from benchmarks.peers.peer import Peer, PeerError
from benchmarks.server import save_random_model


def main(
    sizes: Annotated[list[str], typer.Option(help=f"One of {', '.join(SIZES)}; repeatable.")] = ["8M", "134M", "464M"],  # noqa: B006
    rounds: Annotated[int, typer.Option(help="Turns of every candidate.", min=1)] = 7,
    install: Annotated[
        bool, typer.Option("--install", help="Make the environments that are missing, and end.")
    ] = False,
    environments: Annotated[Path, typer.Option(help="Folder of the peers' environments.")] = Path("build/peers"),
    output_dir: Annotated[Path, typer.Option(help="Folder for peers.json.")] = machine.RESULTS,
) -> None:
    """Print a table for each size and write them as JSON; a peer that is not installed is named and left out."""
    missing = [peer for peer in PEERS if not peer.is_installed(environments)]
    if install:
        _install(missing, environments)
        return
    for peer in missing:
        typer.echo(f"{peer.name} skipped: it is not installed; `python -m benchmarks.peers --install` does that")
    present = [peer for peer in PEERS if peer not in missing]
    if not present:
        typer.echo("no peer to compare with")
        return
    torch.set_num_threads(1)
    result: dict[str, Any] = {"machine": machine.describe(), "sizes": {}}
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=environments) as folder, ExitStack() as running:
            checkpoint = Path(folder, "checkpoint").absolute()
            save_random_model(SIZES[size], checkpoint)
            processes = [
                (peer, running.enter_context(peer.start(environments, checkpoint, _scratch(folder, peer))))
                for peer in present
            ]
            result["sizes"][size] = measure(checkpoint, processes, rounds)
        _print_table(size, result["sizes"][size])
        machine.write("peers", result, output_dir)


def _install(missing: list[Peer], environments: Path) -> None:
    failed = False
    for peer in missing:
        typer.echo(f"installing {peer.name} into {environments / peer.name}; what is compiled may take half an hour")
        try:
            peer.install(environments)
        except PeerError as error:
            typer.echo(str(error), err=True)
            failed = True
    if failed:
        raise typer.Exit(1)


def _scratch(folder: str, peer: Peer) -> Path:
    scratch = Path(folder, peer.name).absolute()
    scratch.mkdir()
    return scratch


def _print_table(size: str, result: dict[str, Any]) -> None:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    typer.echo(f"\n{size}: CPU time of one forward pass, one thread; {versions}")
    typer.echo(f"{'':<24}{'ms':>10}{'/ ' + BASELINE:>12}{'logits differ by':>20}")
    candidates = result["candidates"]
    for name, figures in candidates.items():
        ratio = candidates[BASELINE]["cpu_ms"] / figures["cpu_ms"]
        differs = "" if figures["difference"] is None else f"{figures['difference']:.3%}"
        typer.echo(f"{name:<24}{figures['cpu_ms']:>10.1f}{ratio:>11.2f}×{differs:>20}")
    for name, found in result["refused"].items():
        typer.echo(
            f"{name} not timed: its logits differ by {found['difference']:.3%}, at most {found['tolerance']:.1%}"
        )


if __name__ == "__main__":
    typer.run(main)
