"""What one attack reached against one protection."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """`reached` in the unit of `measure`, beside `yardstick`: what guessing, or nobody attacking, reaches there."""

    attack: str
    measure: str
    protection: str
    reached: float
    yardstick: float
