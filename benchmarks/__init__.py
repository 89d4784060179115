"""How fast and lean each stage is, beside the published way and what the machine can do: `python -m benchmarks`."""
