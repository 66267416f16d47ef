"""What the commands of `litedetr.cli` do. Each takes its parsed arguments and gives the exit status; what it imports is loaded
when it runs, so that `--help` answers at once."""


def size_of(text: str) -> tuple[int, int]:
    """"800x1066" -> (height, width)."""
    try:
        height, width = (int(side) for side in text.lower().replace("×", "x").split("x"))
    except ValueError:
        height = width = 0
    if min(height, width) < 1:
        raise ValueError(f"expected a size like 800x1066 (height x width), got {text!r}")
    return height, width
