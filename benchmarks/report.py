"""Writes the figures of a run into the documentation: the tables of ``benchmarks.md``, and the chart beside it."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

#: The names of the programs in the documentation.
NAMES = {
    "requests_loop": "`requests` loop",
    "httpx_loop": "`httpx` loop",
    "list_operator": "**`WhatsAppListWabasOperator`**",
    "list_hook": "**`WhatsAppHook`**",
    "http_operator": "Airflow's `HttpOperator`",
    "facebook_sdk": "`facebook-business`",
    "pywa_client": "`pywa`",
    "dlt_pipeline": "`dlt`",
}
#: What the others are compared with.
BASE = "requests_loop"
_BAR, _LABELS, _WIDTH = 26, 230, 720


def write_docs(results: dict[str, Any], folder: Path) -> None:
    """Replace the tables and the chart.

    :param results: figures as ``compare.py`` writes them to a file
    :param folder: has ``benchmarks.md``
    """
    page = folder / "benchmarks.md"
    text = page.read_text()
    tables = {
        "costs": _costs(results),
        "waits": _waits(results),
        "faults": _faults(results),
        "growth": _growth(results),
        "versions": _versions(results),
    }
    for name, table in tables.items():
        before, found, rest = text.partition(f"<!-- {name} -->\n")
        _, found_end, after = rest.partition("<!-- end -->")
        if not found or not found_end:
            raise ValueError(f"{page} has no place for the table {name!r}")
        text = f"{before}{found}\n{table}\n{found_end}{after}"
    page.write_text(text)
    (folder / "benchmarks.svg").write_text(_chart(results))


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _costs(results: dict[str, Any]) -> str:
    sizes = sorted({line["size"] for line in results["costs"]})
    found = {(line["peer"], line["size"]): line for line in results["costs"]}
    head = ["CPU, times that of the loop", *(f"{size:,}" for size in sizes[:3])]
    head += [f"{size:,} without imports" for size in sizes[:3]] + ["import, s"]
    head += [f"MiB at {size:,}" for size in (sizes[1], sizes[-1])] + ["connections"]
    rows = []
    for peer in results["versions"]:
        lines = [found[peer, size] for size in sizes]
        rows.append(
            [
                NAMES[peer],
                *(f"{_times_with_imports(line, found[BASE, line['size']]):.2f}" for line in lines[:3]),
                *(f"{line['cpu_x']:.2f}" for line in lines[:3]),
                f"{lines[1]['loading']:.2f}",
                f"{lines[1]['megabytes']:.0f}",
                f"{lines[-1]['megabytes']:.0f}",
                f"{lines[1]['connections']:,}",
            ]
        )
    return _table(head, rows)


def _times_with_imports(line: dict[str, Any], base: dict[str, Any]) -> float:
    return float((line["loading"] + line["cpu"]) / (base["loading"] + base["cpu"]))


def _waits(results: dict[str, Any]) -> str:
    latencies = sorted({line["latency"] for line in results["waits"]})
    found = {(line["peer"], line["latency"]): line for line in results["waits"]}
    head = ["wall time"]
    for latency in latencies:
        head += [f"{latency * 1e3:g} ms a page: times that of the loop", "times the server's own"]
    rows = []
    for peer in results["versions"]:
        row = [NAMES[peer]]
        for latency in latencies:
            line = found[peer, latency]
            row += [f"{line['wall_x']:.2f}", f"{line['of_server']:.2f}"]
        rows.append(row)
    return _table(head, rows)


def _faults(results: dict[str, Any]) -> str:
    faults = list(dict.fromkeys(line["fault"] for line in results["faults"]))
    found = {(line["peer"], line["fault"]): line["outcome"] for line in results["faults"]}
    rows = [[NAMES[peer], *(found[peer, fault] for fault in faults)] for peer in results["versions"]]
    return _table(["1,000 accounts, on the fifth page:", *faults], rows)


def _growth(results: dict[str, Any]) -> str:
    rows = [
        [
            f"{line['size']:,}",
            f"`.{line['suffix']}`",
            f"{line['cpu']:.2f}",
            f"{line['cpu'] / line['size'] * 1e6:.1f}",
            f"{line['wall']:.2f}",
            f"{line['megabytes']:.0f}",
        ]
        for line in results["growth"]
    ]
    return _table(["accounts", "format", "CPU, s", "CPU an account in millionths of a second", "wall, s", "MiB"], rows)


def _versions(results: dict[str, Any]) -> str:
    return f"{results['machine']}; {', '.join(dict.fromkeys(results['versions'].values()))}.\n"


def _chart(results: dict[str, Any]) -> str:
    size = sorted({line["size"] for line in results["costs"]})[1]
    lines = {line["peer"]: line for line in results["costs"] if line["size"] == size}
    times = {peer: _times_with_imports(line, lines[BASE]) for peer, line in lines.items()}
    scale = (_WIDTH - _LABELS - 60) / max(times.values())
    height = _BAR * len(lines) + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        'font-size="14">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="10" y="24" font-weight="bold">CPU for {size:,} accounts, times that of a plain requests loop</text>',
    ]
    for number, peer in enumerate(sorted(times, key=times.__getitem__)):
        y = 40 + number * _BAR
        color = "#25a55f" if peer.startswith("list_") else "#8a94a6"
        name = escape(NAMES[peer].replace("*", "").replace("`", ""))
        width = max(times[peer] * scale, 2)
        parts += [
            f'<text x="{_LABELS - 10}" y="{y + 16}" text-anchor="end">{name}</text>',
            f'<rect x="{_LABELS}" y="{y + 3}" width="{width:.0f}" height="{_BAR - 8}" fill="{color}"/>',
            f'<text x="{_LABELS + width + 6:.0f}" y="{y + 16}">{times[peer]:.2f}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])
