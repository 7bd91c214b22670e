"""`isobert info`: what a checkpoint holds, as a page on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..conversion.describe import Description, describe

# In the order in which one asks for them; a family shows those that it has.
_SIZES = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "embedding_size",
    "intra_bottleneck_size",
    "num_feedforward_networks",
    "vocab_size",
    "max_position_embeddings",
    "num_labels",
)


def show_info(checkpoint: str, head: str | None) -> None:
    """Print what a checkpoint holds, and judge it for a head."""
    found = describe(checkpoint, head)
    console = Console()
    table = Table(title=escape(checkpoint), show_header=False, title_justify="left")
    table.add_column("what", style="bold", no_wrap=True)
    table.add_column("found", overflow="fold")
    for what, value in _facts(found).items():
        table.add_row(what, escape(value))
    console.print(table)
    if found.report is not None:
        assert found.family is not None
        name = found.family.model_name(found.head, "pt")
        console.print(f"[bold]For {name}:[/bold] {escape(str(found.report))}", soft_wrap=True)


def _facts(found: Description) -> dict[str, str]:
    facts: dict[str, str] = {}
    if found.family is None:
        facts["family"] = "not known: there is no config.json"
    else:
        prefix = found.family.prefix
        facts["family"] = prefix
        facts["heads"] = "\n".join(
            f"{how}: {' or '.join(prefix + head for head in heads) or 'none'}"
            for how, heads in (("by config", found.heads_stated), ("by tensors", found.heads_found))
        )
        sizes = {name: getattr(found.config, name, None) for name in _SIZES}
        facts["sizes"] = "\n".join(f"{name} {value:,}" for name, value in sizes.items() if value is not None)
    parts = "\n".join(f"  {part} {count:,}" for part, count in found.parts.items())
    facts["parameters"] = f"{found.parameters:,}\n{parts}"
    facts["dtype"] = ", ".join(f"{dtype} ({count:,})" for dtype, count in found.dtypes.items())
    facts["form"] = found.form
    facts["files"] = "\n".join(f"{path.name} ({size:,} bytes)" for path, size in found.files.items())
    facts["tokenizer"] = ", ".join(found.tokenizer_files) or "no files of a tokenizer"
    return facts
