"""What is given once for all cameras, or for each."""

from typing import Any


def repeat_to_list(x: Any, n: int, cls: Any) -> list[Any]:
    """`x` as a list of `n`, if it is None or one of `cls`; `n` things are left as they are.

    Raises:
        ValueError: there is another number of them.
    """
    values = [x] * n if x is None or isinstance(x, cls) else list(x)
    if len(values) != n:
        raise ValueError(f"got {len(values)} values for {n} cameras: {x}. Give one, or one for each.")
    return values


def options_by_camera(n_cameras: int, **options: Any) -> list[dict[str, Any]]:
    """The options of each camera, of those that are given once for all or as a list, one for each."""
    lists = {
        name: repeat_to_list(value, n_cameras, () if isinstance(value, list | tuple) else object)
        for name, value in options.items()
    }
    return [{name: values[i] for name, values in lists.items()} for i in range(n_cameras)]
