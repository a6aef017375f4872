"""Tables and plots from the results: `python -m benchmarks.report`, after the benchmarks have run.

Tables replace the text between the markers `<!-- bench:NAME -->` and `<!-- /bench -->` of the documents; plots lie
beside the results.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import typer

from benchmarks import board, lengths
from benchmarks.machine import RESULTS
from benchmarks.peers.measuring import BASELINE

matplotlib.use("Agg")
from matplotlib import pyplot

ROOT = Path(__file__).parent.parent
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "docs/board.md",
    ROOT / "docs/speed.md",
    ROOT / "docs/constraints.md",
    RESULTS / "README.md",
)

# The rows of the short table: what a user chooses between.
SUMMARY = ("reference float32", "float32", "bfloat16", "int8", "int8, dual cache")


def main() -> None:
    """Write every table and plot for which there is a result."""
    tables: dict[str, str] = {}
    reports = {
        "inference": _inference,
        "lengths": _lengths,
        "dispatch": _dispatch,
        "prefix": _prefix,
        "large": _large,
        "peers": _peers,
        "server": _server,
        "board": _board,
        "constraints": _constraints,
    }
    for name, tables_of in reports.items():
        file = RESULTS / f"{name}.json"
        if file.exists():
            result = json.loads(file.read_text())
            tables |= tables_of(result)
            if "machine" in result:
                tables[f"{name}-machine"] = _machine(result["machine"])
    for document in DOCUMENTS:
        document.write_text(_filled(document.read_text(), tables))
    typer.echo(f"{', '.join(tables)} written to {', '.join(str(document.relative_to(ROOT)) for document in DOCUMENTS)}")


def _filled(text: str, tables: dict[str, str]) -> str:
    def fill(found: re.Match[str]) -> str:
        table = tables.get(found[1])
        return found[0] if table is None else f"<!-- bench:{found[1]} -->\n{table}\n<!-- /bench -->"

    return re.sub(r"<!-- bench:([a-z0-9-]+) -->.*?<!-- /bench -->", fill, text, flags=re.DOTALL)


def _machine(machine: dict[str, Any]) -> str:
    reached = machine["giga_operations_per_second_and_thread"]
    return (
        f"{machine['processor']}; {machine['cores']} cores; torch {machine['torch']}; commit {machine['commit']}, "
        f"{machine['date']}. One thread multiplies matrices at "
        + ", ".join(f"{figure} GOP/s ({kind})" for kind, figure in reached.items())
        + "."
    )


def _inference(result: dict[str, Any]) -> dict[str, str]:
    sizes = result["sizes"]
    names = list(next(iter(sizes.values()))["candidates"])
    _plot_inference(sizes, [name for name in names if not name.startswith("reference")])
    return {
        "inference": _inference_table(sizes, names),
        "inference-summary": _inference_table(sizes, [name for name in names if name in SUMMARY]),
    }


def _inference_table(sizes: dict[str, Any], names: Sequence[str]) -> str:
    lines = ["| " + " | ".join(("", *sizes)) + " |", "|---|" + "---|" * len(sizes)]
    for name in names:
        cells = [name]
        for size in sizes.values():
            seconds = size["candidates"][name]["generation_cpu_s"]
            float32, bfloat16 = (
                size["candidates"][f"reference {dtype}"]["generation_cpu_s"] / seconds
                for dtype in ("float32", "bfloat16")
            )
            cells.append(f"{seconds:.2f} s, {float32:.1f}× / {bfloat16:.1f}×")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _plot_inference(sizes: dict[str, Any], names: list[str]) -> None:
    figure, axes = pyplot.subplots(figsize=(8, 3.5))
    width = 0.8 / len(sizes)
    for number, (size, found) in enumerate(sizes.items()):
        baseline = found["candidates"]["reference float32"]["generation_cpu_s"]
        ratios = [baseline / found["candidates"][name]["generation_cpu_s"] for name in names]
        bars = axes.bar([place + number * width for place in range(len(names))], ratios, width, label=size)
        axes.bar_label(bars, fmt="%.1f", fontsize=7)
    axes.set_xticks([place + 0.4 - width / 2 for place in range(len(names))], names, fontsize=8)
    axes.set_ylabel("times the published loop, float32")
    axes.legend(title="parameters")
    figure.tight_layout()
    figure.savefig(RESULTS / "speed.png", dpi=120)


def _lengths(result: dict[str, Any]) -> dict[str, str]:
    kinds, reached = result["kinds"], result["machine"]["giga_operations_per_second_and_thread"]
    lines = ["| positions | " + " | ".join(kinds) + " |", "|---|" + "---|" * len(kinds)]
    for length in next(iter(kinds.values())):
        cells = [
            f"{found[length]['step_cpu_s']:.2f} s, {lengths.share(found[length], kind, reached):.0%}"
            for kind, found in kinds.items()
        ]
        lines.append(f"| {int(length):,} | " + " | ".join(cells) + " |")
    return {"lengths": "\n".join(lines)}


def _dispatch(result: dict[str, Any]) -> dict[str, str]:
    columns = ["", "step over the canvas", "without arithmetic", "cached step", "without arithmetic"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for kind, steps in result["kinds"].items():
        cells = [
            f"{step['step_ms']:.1f} ms | {step['empty_ms']:.1f} ms, {step['empty_ms'] / step['step_ms']:.0%}"
            for step in steps.values()
        ]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return {"dispatch": "\n".join(lines)}


def _prefix(result: dict[str, Any]) -> dict[str, str]:
    lines = ["| | blocks of | computed | from the pool | copying it in / out |", "|---|---|---|---|---|"]
    for kind, by_length in result["kinds"].items():
        for length, found in by_length.items():
            without, reused = found["without_cpu_s"], found["with_cpu_s"]
            copies = " / ".join(f"{1000 * found[f'{way}_cpu_s']:.1f} ms" for way in ("into_pool", "out_of_pool"))
            lines.append(
                f"| {kind} | {length} | {without:.2f} s | {reused:.2f} s, ÷{without / reused:.1f} | {copies} |"
            )
    return {"prefix": "\n".join(lines)}


def _large(result: dict[str, Any]) -> dict[str, str]:
    kinds = result["kinds"]
    lines = ["| | load | peak when loaded | positions | exact step | cached step | slowest `/health` |"]
    lines.append("|---|---|---|---|---|---|---|")
    for kind, found in kinds.items():
        cells = [kind, f"{found['load_cpu_s']:.0f} s", f"{found['load_peak_gb']:.1f} GB"]
        for length, step in found["steps"].items():
            cached = "–" if step["cached_cpu_s"] is None else f"{step['cached_cpu_s']:.1f} s"
            figures = [f"{int(length):,}", f"{step['exact_cpu_s']:.1f} s", cached]
            lines.append("| " + " | ".join([*cells, *figures, f"{step['slowest_health_ms']:.0f} ms"]) + " |")
            cells = ["", "", ""]
    steps = {kind: found["steps"].get("256") for kind, found in kinds.items()}
    speeds = {kind: _text_speeds(step) for kind, step in steps.items() if step and step["cached_cpu_s"] is not None}
    lines += ["", "| tokens of text per CPU second | " + " | ".join(speeds) + " |", "|---|" + "---|" * len(speeds)]
    for setting in next(iter(speeds.values()), ()):
        lines.append(f"| {setting} | " + " | ".join(f"{speed[setting]:.2f}" for speed in speeds.values()) + " |")
    return {"large": "\n".join(lines)}


def _text_speeds(step: dict[str, float]) -> dict[str, float]:
    """Tokens per second of an answer of 128 tokens in four blocks, on a canvas of 256 positions."""
    exact, cached = step["exact_cpu_s"], step["cached_cpu_s"]
    seconds = {
        "one token a step": 128 * exact,
        "four tokens a step": 32 * exact,
        "one token a step, dual cache": 4 * exact + 124 * cached,
        "four tokens a step, dual cache": 4 * exact + 28 * cached,
    }
    return {setting: 128 / needed for setting, needed in seconds.items()}


def _peers(result: dict[str, Any]) -> dict[str, str]:
    sizes = result["sizes"]
    lines = ["| | " + " | ".join((*sizes, "logits differ by")) + " |", "|---|" + "---|" * (len(sizes) + 1)]
    names = dict.fromkeys(name for found in sizes.values() for name in (*found["candidates"], *found["refused"]))
    for name in names:
        cells, differences = [name], []
        for found in sizes.values():
            figures = found["candidates"].get(name)
            if figures is None:
                cells.append("not timed")
                differences.append(found["refused"][name]["difference"])
                continue
            ratio = found["candidates"][BASELINE]["cpu_ms"] / figures["cpu_ms"]
            cells.append(f"{figures['cpu_ms']:.1f} ms, {ratio:.2f}×")
            if figures["difference"] is not None:
                differences.append(figures["difference"])
        cells.append(f"{max(differences):.2%}" if differences else "–")
        lines.append("| " + " | ".join(cells) + " |")
    versions = next(iter(sizes.values()))["versions"]
    lines.append("\n" + ", ".join(f"{name} is `{version}`" for name, version in versions.items()) + ".")
    return {"peers": "\n".join(lines)}


def _constraints(result: dict[str, Any]) -> dict[str, str]:
    (small, by_small), (large, by_large) = result["vocabularies"].items()
    kinds = list(next(iter(by_large["patterns"].values()))["step_ms"])
    columns = ["pattern", "states", "classes", "arcs", "KB", f"compile ms, {small} / {large} tokens"]
    lines = ["| " + " | ".join([*columns, *(f"step ms: {kind}" for kind in kinds)]) + " |"]
    lines.append("|---|" + "---|" * (len(columns) + len(kinds) - 1))
    for name, found in by_large["patterns"].items():
        sizes = [f"{found[size]:,}" for size in ("states", "classes", "arcs", "kilobytes")]
        compiled = f"{by_small['patterns'][name]['compile_ms']:.0f} / {found['compile_ms']:.0f}"
        steps = [f"{found['step_ms'][kind]['mean']:.1f}" for kind in kinds]
        lines.append("| " + " | ".join([name, *sizes, compiled, *steps]) + " |")
    lines.append(
        f"\nStates to kilobytes, and the steps, are those of {large} tokens. The tree of the tokens' bytes takes "
        f"{by_large['trie_s']:.1f} s, once."
    )
    return {"constraints": "\n".join(lines)}


def _server(result: dict[str, Any]) -> dict[str, str]:
    lines = [
        "| clients | steps/s | first token p50 | p95 | whole answer p50 | p95 |",
        "|---|---|---|---|---|---|",
    ]
    for clients, found in result["concurrency"].items():
        lines.append(
            f"| {clients} | {found['steps_per_s']:.1f} "
            f"| {found['first_token_p50_s']:.2f} s | {found['first_token_p95_s']:.2f} s "
            f"| {found['latency_p50_s']:.2f} s | {found['latency_p95_s']:.2f} s |"
        )
    overhead, threads, caches, memory = (result[name] for name in ("overhead", "model_threads", "caches", "memory"))
    facts = [
        f"- Through HTTP, 16 streams: {overhead['http_share_of_core_throughput']:.1%} of the core's own throughput; "
        f"`/v1/denoise` instead costs {overhead['denoise_costs_more']:+.1%}.",
        f"- 32 clients against one, CPU time: {caches['none_32_over_1']:.2f}× without caches, "
        f"{caches['dual_32_over_1']:.2f}× with the dual cache.",
        f"- Two model threads: {threads['2_over_1']:.2f}× the steps a second of one.",
        f"- Memory: {memory['imports_mb']:.0f} MB imports, {memory['weights_mb']:.0f} MB weights; peak "
        f"{memory['peak_loaded_mb']:.0f} MB loaded, {memory['peak_under_load_mb']:.0f} MB under load.",
        f"- From start to the demo model's first answer: {result['cold_start']['first_answer_s']:.1f} s; started again "
        f"{result['cold_start']['first_answer_again_s']:.1f} s.",
    ]
    return {"server": "\n".join([*lines, "", *facts])}


def _board(result: dict[str, Any]) -> dict[str, str]:
    tables = {}
    for length, run in result["lengths"].items():
        found = run["settings"]
        if board.EXACT not in found:
            continue
        tables[f"board-{length}"] = _board_table(found)
        tables[f"board-{length}-machine"] = _machine(run["machine"])
        tables[f"board-{length}-area"] = _board_summary(found)
        presets = {name: one for name, one in found.items() if name in board.presets()}
        tables[f"presets-{length}"] = _board_table(presets)
    _plot_board(result["lengths"])
    return tables


def _board_table(found: dict[str, Any]) -> str:
    exact = found[board.EXACT]
    tasks = list(exact["right"])
    lines = [
        "| | " + " | ".join(f"{task} ({len(exact['right'][task])})" for task in tasks) + " | forward passes | CPU s |",
        "|---|" + "---|" * (len(tasks) + 2),
    ]
    is_on_front = set(board.front(found))
    for name, one in found.items():
        cells = [f"**{name}**" if name in is_on_front else name]
        for task in tasks:
            right = one["right"][task]
            share = f"{sum(right) / len(right):.1%}"
            change, error = board.difference(right, exact["right"][task])
            # Without an error no answer went from right to wrong or back.
            cells.append(f"{share} ({100 * change:+.1f} ± {100 * error:.1f})" if error else share)
        for kind, form in (("forward_passes", ","), ("cpu_s", ".1f")):
            cells.append(f"{sum(one[kind].values()):{form}} (÷{board.speedup(one, exact, kind):.1f})")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _board_summary(found: dict[str, Any]) -> str:
    exact = found[board.EXACT]
    front = ", ".join(
        f"{name} ({board.accuracy(found[name]):.1%} at ÷{board.speedup(found[name], exact, 'cpu_s'):.1f})"
        for name in board.front(found)
    )
    return f"Area under accuracy and parallelism: **{board.area(found):.2f}**. On the front of CPU time: {front}."


def _plot_board(lengths: dict[str, Any]) -> None:
    figure, plots = pyplot.subplots(len(lengths), 1, figsize=(10, 5 * len(lengths)), squeeze=False)
    for axes, (length, run) in zip(plots[:, 0], lengths.items(), strict=True):
        found = run["settings"]
        exact = found[board.EXACT]
        for number, (name, one) in enumerate(found.items(), start=1):
            place = board.speedup(one, exact, "cpu_s"), board.accuracy(one)
            axes.plot(*place, "o", markersize=4, label=f"{number}  {name}")
            axes.annotate(str(number), place, fontsize=7, xytext=(3, 3), textcoords="offset points")
        axes.set_title(f"{length} positions")
        axes.set_xlabel("times less CPU time than one token a step")
        axes.set_ylabel("accuracy, mean of the tasks")
        axes.legend(fontsize=6, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.tight_layout()
    figure.savefig(RESULTS / "board.png", dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    typer.run(main)
