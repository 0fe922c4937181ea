"""The order of populations, and what a loop's last projection must wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Pairs = set[tuple[str, str]]


def order(
    inputs: Sequence[str], others: Sequence[str], heard: Mapping[str, Sequence[str]]
) -> list[str]:
    """Sources before targets as far as loops allow, seen from the inputs.

    Args:
        inputs, others: populations.
        heard: population -> those that it gets something from.
    """
    listeners: dict[str, list[str]] = {name: [] for name in (*inputs, *others)}
    for post, pres in heard.items():
        for pre in pres:
            listeners[pre].append(post)
    done: list[str] = []
    seen: set[str] = set()
    for root in (*inputs, *others):
        if root in seen:
            continue
        seen.add(root)
        # Depth first, without recursion: files may hold long chains.
        stack = [(root, iter(listeners[root]))]
        while stack:
            name, rest = stack[-1]
            following = next((n for n in rest if n not in seen), None)
            if following is None:
                done.append(name)
                stack.pop()
            else:
                seen.add(following)
                stack.append((following, iter(listeners[following])))
    return done[::-1]


def back_edges(ordered: Sequence[str], heard: Mapping[str, Sequence[str]]) -> Pairs:
    """(pre, post) of everything that goes to the same or an earlier population."""
    at = {name: i for i, name in enumerate(ordered)}
    return {(pre, post) for post, pres in heard.items() for pre in pres if at[pre] >= at[post]}


def reach(
    ordered: Sequence[str], heard: Mapping[str, Sequence[str]], back: Pairs
) -> dict[tuple[str, str], int]:
    """(pre, post) of `back` -> most projections on a way forward from post to pre."""
    out: dict[tuple[str, str], int] = {}
    for start in {post for _, post in back}:
        far = {start: 0}
        for name in ordered:
            if name == start:
                continue
            sources = [p for p in heard.get(name, ()) if (p, name) not in back and p in far]
            if sources:
                far[name] = 1 + max(far[p] for p in sources)
        out.update({(pre, post): far.get(pre, 0) for pre, post in back if post == start})
    return out
