"""Numbers as a reader wants them."""


def human(value: float, unit: str) -> str:
    """A number with its unit, scaled: 7.41 GiB, 2.39 GFLOP, 12.5 days."""
    if unit == "bytes":
        return _scaled(value, 1024, ("bytes", "KiB", "MiB", "GiB", "TiB"))
    if unit == "FLOP":
        return _scaled(value, 1000, ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP"))
    if unit == "s":
        return f"{value:,.3g} s" if value >= 0.1 else f"{value * 1e3:,.3g} ms" if value >= 1e-4 else f"{value * 1e6:,.3g} µs"
    number = f"{value:,.0f}" if value >= 1000 or float(value).is_integer() else f"{value:.3g}"
    return f"{number} {unit}".strip()


def _scaled(value: float, step: int, units: tuple[str, ...]) -> str:
    power = 0
    while value >= step and power < len(units) - 1:
        value, power = value / step, power + 1
    return f"{value:,.0f} {units[power]}" if power == 0 else f"{value:.2f} {units[power]}"
