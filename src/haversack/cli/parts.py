"""``haversack parts``."""

from __future__ import annotations

from haversack.cli.terminal import say, say_json


def parts(shelf: str = "", *, json: bool = False) -> None:
    """List the parts on every shelf: targets, metrics, methods, preprocessing.

    Parameters
    ----------
    shelf:
        Only the shelf of this noun (operation, metric, 'preparation step', quantizer, palette, target).
    json:
        Print JSON.
    """
    from haversack.base.errors import UsageError
    from haversack.base.shelf import nearest
    from haversack.flow import shelves

    found = {noun: one.catalogue() for noun, one in shelves.all_shelves().items()}
    if shelf and shelf not in found:
        raise UsageError(
            f"there is no shelf of {shelf!r}{nearest(shelf, found)}",
            tried=f"the shelves {', '.join(found)}",
            next_step="haversack parts",
        )
    chosen = {noun: lines for noun, lines in found.items() if shelf in ("", noun)}
    if json:
        say_json(chosen)
        return
    for noun, lines in chosen.items():
        say(f"{noun}:")
        width = max(map(len, lines), default=0)
        for name, line in lines.items():
            say(f"  {name:<{width}}  {line}")
