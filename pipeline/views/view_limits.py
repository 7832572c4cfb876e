"""How many views there may be, and of which seed: known without torch."""

from __future__ import annotations

from pipeline.base.errors import InputError
from pipeline.base.registry import describe_unknown
from pipeline.views import POLICIES

IDENTITY = "none"  # the policy that changes nothing


def refuse_impossible_views(policy: str, count: int, seed: int) -> None:
    """Raise InputError: the policy is unknown, the count below 1 or (of "none") above 1, or the seed out of range."""
    if policy not in POLICIES.entries:
        raise InputError(describe_unknown("policy", policy, POLICIES.entries))
    if not 1 <= count <= 2**31:
        raise InputError("views: count", expected="1 or more", found=str(count))
    if policy == IDENTITY and count != 1:
        raise InputError(
            "views: count",
            expected="1, since all views of policy none are the same",
            found=str(count),
            fix="leave it out, or name a policy that changes the images",
        )
    if not 0 <= seed < 2**64:
        raise InputError("views: seed", expected="0 <= seed < 2^64", found=str(seed))
