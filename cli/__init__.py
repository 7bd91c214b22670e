"""The `isobert` command."""
