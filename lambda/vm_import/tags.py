"""How tags are changed: never more at once than AWS allows."""

from collections.abc import Callable, Iterable, Mapping

from contract import AWS_TAG_LIMIT


def change_tags(
    existing: Iterable[str],
    changed: Mapping[str, str],
    removed: Iterable[str],
    add: Callable[[Mapping[str, str]], None],
    remove: Callable[[list[str]], None],
) -> None:
    """Change and remove tags. Tags to remove are removed first if there would be too many.

    Otherwise they are removed last: what fails in between has too many tags rather than too few.

    Args:
        existing: The keys that the resource has.
        changed: Tags to add, or whose values change.
        removed: Keys to remove.
        add: Adds tags or changes their values.
        remove: Removes tags.
    """
    keys = sorted(removed)
    is_removed_first = len({*existing, *changed}) > AWS_TAG_LIMIT
    if keys and is_removed_first:
        remove(keys)
    if changed:
        add(changed)
    if keys and not is_removed_first:
        remove(keys)
